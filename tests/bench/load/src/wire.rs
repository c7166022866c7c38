//! The wire: PDUs and DIMSE messages, as little of PS3.7 and PS3.8 as a driver needs. Outgoing messages are one gathered
//! write straight from where the bytes lie. The peer is trusted: this is a driver, not a server.

use crate::R;
use std::collections::{BTreeMap, HashMap};
use std::io::{self, IoSlice, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

pub(crate) const IVLE: &str = "1.2.840.10008.1.2";
pub(crate) const EVLE: &str = "1.2.840.10008.1.2.1";
pub(crate) const STUDY_FIND: &str = "1.2.840.10008.5.1.4.1.2.2.1";
pub(crate) const STUDY_MOVE: &str = "1.2.840.10008.5.1.4.1.2.2.2";
pub(crate) const STUDY_GET: &str = "1.2.840.10008.5.1.4.1.2.2.3";
pub(crate) const STORAGE: &[&str] = &[
    "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.4",
    "1.2.840.10008.5.1.4.1.1.1",
    "1.2.840.10008.5.1.4.1.1.1.1",
    "1.2.840.10008.5.1.4.1.1.13.1.3",
    "1.2.840.10008.5.1.4.1.1.3.1",
    "1.2.840.10008.5.1.4.1.1.7",
];

pub(crate) fn be16(b: &[u8]) -> usize {
    u16::from_be_bytes([b[0], b[1]]) as usize
}
pub(crate) fn be32(b: &[u8]) -> usize {
    u32::from_be_bytes([b[0], b[1], b[2], b[3]]) as usize
}
pub(crate) fn le16(b: &[u8]) -> usize {
    u16::from_le_bytes([b[0], b[1]]) as usize
}
pub(crate) fn le32(b: &[u8]) -> usize {
    u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize
}

pub(crate) fn item(t: u8, body: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&[t, 0]);
    out.extend_from_slice(&(body.len() as u16).to_be_bytes());
    out.extend_from_slice(body);
}

pub(crate) struct Ctx {
    pub(crate) class: String,
    pub(crate) ts: Vec<String>,
}

pub(crate) struct Assoc {
    pub(crate) s: TcpStream,
    pub(crate) buf: Vec<u8>,
    pub(crate) rd: usize,
    pub(crate) wr: usize,
    pub(crate) max_pdv: usize,
    pub(crate) ctx: BTreeMap<u8, (String, String)>,
    pub(crate) pdu: Vec<u8>,
}

impl Assoc {
    pub(crate) fn over(s: TcpStream) -> Self {
        Assoc { s, buf: vec![0; 512 << 10], rd: 0, wr: 0, max_pdv: 16378, ctx: BTreeMap::new(), pdu: Vec::new() }
    }
    pub(crate) fn fill(&mut self, out: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while done < out.len() {
            if self.rd == self.wr {
                if out.len() - done >= self.buf.len() {
                    self.s.read_exact(&mut out[done..])?;
                    return Ok(());
                }
                self.rd = 0;
                self.wr = self.s.read(&mut self.buf)?;
                if self.wr == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            let n = (self.wr - self.rd).min(out.len() - done);
            out[done..done + n].copy_from_slice(&self.buf[self.rd..self.rd + n]);
            self.rd += n;
            done += n;
        }
        Ok(())
    }
    /// Reads one PDU into self.pdu and gives its type.
    pub(crate) fn read_pdu(&mut self) -> R<u8> {
        let mut h = [0u8; 6];
        self.fill(&mut h)?;
        let mut b = std::mem::take(&mut self.pdu);
        b.resize(be32(&h[2..]), 0);
        let r = self.fill(&mut b);
        self.pdu = b;
        r?;
        Ok(h[0])
    }
    pub(crate) fn connect(addr: &str, called: &str, calling: &str, ctxs: &[Ctx], scp_roles: bool) -> R<Self> {
        let s = TcpStream::connect(addr)?;
        s.set_nodelay(true)?;
        s.set_read_timeout(Some(Duration::from_secs(300)))?;
        let mut b = vec![0, 1, 0, 0];
        for ae in [called, calling] {
            b.extend_from_slice(format!("{ae:<16}").as_bytes());
        }
        b.extend_from_slice(&[0; 32]);
        item(0x10, b"1.2.840.10008.3.1.1.1", &mut b);
        for (i, c) in ctxs.iter().enumerate() {
            let mut p = vec![(2 * i + 1) as u8, 0, 0, 0];
            item(0x30, c.class.as_bytes(), &mut p);
            for t in &c.ts {
                item(0x40, t.as_bytes(), &mut p);
            }
            item(0x20, &p, &mut b);
        }
        let mut u = Vec::new();
        item(0x51, &(1u32 << 18).to_be_bytes(), &mut u);
        item(0x52, b"2.25.80302813137786398554742050926734630921", &mut u);
        if scp_roles {
            let mut seen = Vec::new();
            for c in ctxs.iter().filter(|c| STORAGE.contains(&c.class.as_str())) {
                if seen.contains(&&c.class) {
                    continue;
                }
                seen.push(&c.class);
                let mut r = (c.class.len() as u16).to_be_bytes().to_vec();
                r.extend_from_slice(c.class.as_bytes());
                r.extend_from_slice(&[0, 1]);
                item(0x54, &r, &mut u);
            }
        }
        item(0x55, b"DLOAD1", &mut u);
        item(0x50, &u, &mut b);
        let mut a = Assoc::over(s);
        a.send_raw(1, &b)?;
        let t = a.read_pdu()?;
        if t != 2 {
            return Err(format!("association refused: PDU type {t} {:?}", a.pdu).into());
        }
        let b = a.pdu.clone();
        let mut p = 68;
        while p + 4 <= b.len() {
            let (t, l) = (b[p], be16(&b[p + 2..]));
            let v = &b[p + 4..p + 4 + l];
            if t == 0x21 && v[2] == 0 {
                let id = v[0];
                let tsl = be16(&v[6..]);
                let ts = String::from_utf8_lossy(&v[8..8 + tsl]).trim_end_matches('\0').to_string();
                a.ctx.insert(id, (ctxs[(id as usize - 1) / 2].class.clone(), ts));
            } else if t == 0x50 {
                let mut q = 0;
                while q + 4 <= v.len() {
                    let l = be16(&v[q + 2..]);
                    if v[q] == 0x51 {
                        let m = be32(&v[q + 4..]);
                        a.max_pdv = if m == 0 { 1 << 20 } else { m - 6 };
                    }
                    q += 4 + l;
                }
            }
            p += 4 + l;
        }
        Ok(a)
    }
    pub(crate) fn send_raw(&mut self, t: u8, body: &[u8]) -> io::Result<()> {
        let mut h = vec![t, 0];
        h.extend_from_slice(&(body.len() as u32).to_be_bytes());
        h.extend_from_slice(body);
        self.s.write_all(&h)
    }
    pub(crate) fn send_msg(&mut self, ctx: u8, cmd: &[u8], data: Option<&[u8]>) -> io::Result<()> {
        let mut heads: Vec<([u8; 12], &[u8])> = Vec::new();
        let head = |n: usize, flag: u8| {
            let mut h = [4, 0, 0, 0, 0, 0, 0, 0, 0, 0, ctx, flag];
            h[2..6].copy_from_slice(&((n + 6) as u32).to_be_bytes());
            h[6..10].copy_from_slice(&((n + 2) as u32).to_be_bytes());
            h
        };
        heads.push((head(cmd.len(), 3), cmd));
        if let Some(d) = data {
            let n = d.chunks(self.max_pdv).count();
            for (i, c) in d.chunks(self.max_pdv).enumerate() {
                heads.push((head(c.len(), if i + 1 == n { 2 } else { 0 }), c));
            }
        }
        let mut iov: Vec<IoSlice> = Vec::with_capacity(heads.len() * 2);
        for (h, c) in &heads {
            iov.push(IoSlice::new(h));
            iov.push(IoSlice::new(c));
        }
        let mut v = &mut iov[..];
        while !v.is_empty() {
            let k = v.len().min(512);
            let n = self.s.write_vectored(&v[..k])?;
            IoSlice::advance_slices(&mut v, n);
        }
        Ok(())
    }
    /// The next complete command set, or the size of a complete data set: (context, Command | Data bytes).
    pub(crate) fn next_msg(&mut self, part: &mut Partial) -> R<Msg> {
        loop {
            if part.at >= self.pdu.len() || !part.live {
                match self.read_pdu()? {
                    4 => {
                        part.at = 0;
                        part.live = true;
                    }
                    5 => return Ok(Msg::Release),
                    6 => return Ok(Msg::Release),
                    t => return Err(format!("PDU type {t}: {:?}", &self.pdu[..self.pdu.len().min(8)]).into()),
                }
            }
            while part.at + 6 <= self.pdu.len() {
                let l = be32(&self.pdu[part.at..]);
                let (ctx, flag) = (self.pdu[part.at + 4], self.pdu[part.at + 5]);
                let body = &self.pdu[part.at + 6..part.at + 4 + l];
                part.at += 4 + l;
                if flag & 1 == 1 {
                    part.cmd.extend_from_slice(body);
                    if flag & 2 == 2 {
                        let c = std::mem::take(&mut part.cmd);
                        return Ok(Msg::Cmd(ctx, parse_cmd(&c)));
                    }
                } else {
                    part.data += body.len() as u64;
                    if flag & 2 == 2 {
                        return Ok(Msg::Data(ctx, std::mem::take(&mut part.data)));
                    }
                }
            }
            part.live = false;
        }
    }
    pub(crate) fn release(mut self) {
        let _ = self.send_raw(5, &[0; 4]);
        let _ = self.read_pdu();
    }
}

#[derive(Default)]
pub(crate) struct Partial {
    pub(crate) at: usize,
    pub(crate) live: bool,
    pub(crate) cmd: Vec<u8>,
    pub(crate) data: u64,
}
pub(crate) enum Msg {
    Cmd(u8, HashMap<u16, Vec<u8>>),
    Data(#[allow(dead_code)] u8, u64),
    Release,
}

pub(crate) fn parse_cmd(b: &[u8]) -> HashMap<u16, Vec<u8>> {
    let (mut m, mut p) = (HashMap::new(), 0);
    while p + 8 <= b.len() {
        let l = le32(&b[p + 4..]);
        m.insert(le16(&b[p + 2..]) as u16, b[p + 8..(p + 8 + l).min(b.len())].to_vec());
        p += 8 + l;
    }
    m
}
pub(crate) fn us(m: &HashMap<u16, Vec<u8>>, k: u16) -> usize {
    m.get(&k).filter(|v| v.len() >= 2).map(|v| le16(v)).unwrap_or(0)
}
pub(crate) fn el(g: u16, e: u16, v: &[u8], pad: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(&g.to_le_bytes());
    out.extend_from_slice(&e.to_le_bytes());
    out.extend_from_slice(&((v.len() + v.len() % 2) as u32).to_le_bytes());
    out.extend_from_slice(v);
    if v.len() % 2 == 1 {
        out.push(pad);
    }
}
pub(crate) fn command(els: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut b = Vec::new();
    for (e, v) in els {
        el(0, *e, v, 0, &mut b);
    }
    let mut o = Vec::new();
    el(0, 0, &(b.len() as u32).to_le_bytes(), 0, &mut o);
    o.extend_from_slice(&b);
    o
}
pub(crate) fn u(v: u16) -> Vec<u8> {
    v.to_le_bytes().to_vec()
}
