//! A storage SCP that counts and discards: where C-MOVE sends to.

use crate::R;
use crate::wire::{Assoc, EVLE, Msg, Partial, be16, be32, command, item, u, us};
use std::collections::HashMap;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

pub(crate) fn store_rsp(m: &HashMap<u16, Vec<u8>>) -> Vec<u8> {
    let g = |k: u16| m.get(&k).cloned().unwrap_or_default();
    command(&[(2, g(2)), (0x100, u(0x8001)), (0x120, g(0x110)), (0x800, u(0x0101)), (0x900, u(0)), (0x1000, g(0x1000))])
}

#[derive(Default)]
pub(crate) struct Sink {
    pub(crate) bytes: AtomicU64,
    pub(crate) insts: AtomicU64,
    pub(crate) stop: AtomicBool,
}

pub(crate) fn sink_conn(s: TcpStream, k: &Sink) -> R<()> {
    s.set_nodelay(true)?;
    let mut a = Assoc::over(s);
    if a.read_pdu()? != 1 {
        return Err("no association request".into());
    }
    let b = a.pdu.clone();
    let mut out = b[..68].to_vec();
    item(0x10, b"1.2.840.10008.3.1.1.1", &mut out);
    let mut p = 68;
    while p + 4 <= b.len() {
        let (t, l) = (b[p], be16(&b[p + 2..]));
        let v = &b[p + 4..p + 4 + l];
        if t == 0x20 {
            let mut q = 4;
            let mut ts: Vec<&[u8]> = Vec::new();
            while q + 4 <= v.len() {
                let n = be16(&v[q + 2..]);
                if v[q] == 0x40 {
                    ts.push(&v[q + 4..q + 4 + n]);
                }
                q += 4 + n;
            }
            let pick = ts.iter().find(|t| **t == EVLE.as_bytes()).or(ts.first()).copied().unwrap_or(b"");
            let mut r = vec![v[0], 0, 0, 0];
            item(0x40, pick, &mut r);
            item(0x21, &r, &mut out);
        } else if t == 0x50 {
            let mut q = 0;
            while q + 4 <= v.len() {
                let n = be16(&v[q + 2..]);
                if v[q] == 0x51 {
                    let m = be32(&v[q + 4..]);
                    a.max_pdv = if m == 0 { 1 << 20 } else { m - 6 };
                }
                q += 4 + n;
            }
        }
        p += 4 + l;
    }
    let mut uu = Vec::new();
    item(0x51, &(1u32 << 18).to_be_bytes(), &mut uu);
    item(0x52, b"2.25.80302813137786398554742050926734630921", &mut uu);
    item(0x50, &uu, &mut out);
    a.send_raw(2, &out)?;
    let (mut part, mut cur) = (Partial::default(), None);
    loop {
        match a.next_msg(&mut part)? {
            Msg::Cmd(c, m) if us(&m, 0x100) == 0x30 => {
                let r = command(&[
                    (2, m.get(&2).cloned().unwrap_or_default()),
                    (0x100, u(0x8030)),
                    (0x120, m.get(&0x110).cloned().unwrap_or_default()),
                    (0x800, u(0x0101)),
                    (0x900, u(0)),
                ]);
                a.send_msg(c, &r, None)?;
            }
            Msg::Cmd(c, m) => cur = Some((c, m)),
            Msg::Data(_, n) => {
                k.bytes.fetch_add(n, Relaxed);
                k.insts.fetch_add(1, Relaxed);
                if let Some((c, m)) = cur.take() {
                    a.send_msg(c, &store_rsp(&m), None)?;
                }
            }
            Msg::Release => {
                a.send_raw(6, &[0; 4])?;
                return Ok(());
            }
        }
    }
}
pub(crate) fn listen(addr: &str, k: Arc<Sink>) -> R<()> {
    let l = TcpListener::bind(addr)?;
    std::thread::spawn(move || {
        for s in l.incoming().flatten() {
            if k.stop.load(Relaxed) {
                break;
            }
            let k = Arc::clone(&k);
            std::thread::spawn(move || {
                let _ = sink_conn(s, &k);
            });
        }
    });
    Ok(())
}
