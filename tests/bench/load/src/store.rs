//! C-STORE of files that are in memory before the clock starts: one synchronous operation at a time per association.
//! `--max-seconds` ends a run early. Units that were begun are ended, so that what was sent is the first part of the list,
//! without a hole. `--server-pid` is whose CPU is told for each tenth.

use crate::R;
use crate::report::{Args, Tenths, cpu_s, dist, locked, opened};
use crate::wire::{Assoc, Ctx, Msg, Partial, command, le16, le32, u, us};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

pub(crate) struct Dcm {
    pub(crate) bytes: Vec<u8>,
    pub(crate) off: usize,
    pub(crate) class: String,
    pub(crate) inst: String,
    pub(crate) ts: String,
    pub(crate) dir: String,
}

/// A file, or `PATH@OFFSET+LENGTH` of one that holds many.
fn read(path: &str) -> io::Result<Vec<u8>> {
    let place = path.rsplit_once('@').and_then(|(pack, place)| {
        let (offset, length) = place.split_once('+')?;
        Some((pack, offset.parse().ok()?, length.parse().ok()?))
    });
    let Some((pack, offset, length)) = place else { return std::fs::read(path) };
    let mut bytes = vec![0; length];
    File::open(pack)?.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

pub(crate) fn load(path: &str) -> R<Dcm> {
    let bytes = read(path).map_err(|e| format!("{path}: {e}"))?;
    if bytes.len() < 144 || &bytes[128..132] != b"DICM" {
        return Err(format!("{path}: not a DICOM file").into());
    }
    let (mut p, mut m) = (132, HashMap::new());
    while p + 8 <= bytes.len() && le16(&bytes[p..]) == 2 {
        let el = le16(&bytes[p + 2..]);
        let long = matches!(&bytes[p + 4..p + 6], b"OB" | b"OW" | b"UN" | b"UT" | b"SQ");
        let (len, h) = if long { (le32(&bytes[p + 8..]), 12) } else { (le16(&bytes[p + 6..]), 8) };
        m.insert(el, String::from_utf8_lossy(&bytes[p + h..p + h + len]).trim_end_matches(['\0', ' ']).to_string());
        p += h + len;
    }
    let g = |k: usize| m.get(&k).cloned().unwrap_or_default();
    let dir = path.rsplit_once('/').map(|x| x.0).unwrap_or("").to_string();
    Ok(Dcm { off: p, class: g(2), inst: g(3), ts: g(0x10), dir, bytes })
}

pub(crate) fn store(a: &Args) -> R<String> {
    let list = std::fs::read_to_string(a.get("list", ""))?;
    let files: Vec<Dcm> = list.lines().filter(|l| !l.is_empty()).map(load).collect::<R<_>>()?;
    let (n_assoc, unit) = (a.num("assoc", 1), a.num("unit", 25));
    let mut pairs: Vec<(String, String)> = files.iter().map(|f| (f.class.clone(), f.ts.clone())).collect();
    pairs.sort();
    pairs.dedup();
    let mut units: Vec<(usize, usize)> = Vec::new();
    for i in 0..files.len() {
        match units.last_mut() {
            Some(l) if l.1 - l.0 < unit && files[l.0].dir == files[i].dir => l.1 = i + 1,
            _ => units.push((i, i + 1)),
        }
    }
    let (next, lat, fails) =
        (AtomicUsize::new(0), Mutex::new(Vec::new()), Mutex::new(BTreeMap::<String, usize>::new()));
    let (sent, cnt) = (AtomicU64::new(0), AtomicU64::new(0));
    let maxpdu = AtomicUsize::new(0);
    let limit_s = a.num("max-seconds", usize::MAX) as f64;
    let tenths = Tenths::of(files.len(), a.get("server-pid", ""));
    let c0 = cpu_s();
    let t0 = Instant::now();
    std::thread::scope(|sc| {
        for _ in 0..n_assoc {
            sc.spawn(|| {
                let r: R<()> = (|| {
                    let ctxs: Vec<Ctx> =
                        pairs.iter().map(|(c, t)| Ctx { class: c.clone(), ts: vec![t.clone()] }).collect();
                    let mut k = Assoc::connect(
                        &a.get("addr", "127.0.0.1:4242"),
                        &a.get("called", "ANY"),
                        &a.get("calling", "DLOAD"),
                        &ctxs,
                        false,
                    )?;
                    maxpdu.store(k.max_pdv + 6, Relaxed);
                    let map: HashMap<(String, String), u8> = k.ctx.iter().map(|(i, v)| (v.clone(), *i)).collect();
                    let (mut l, mut mid, mut part) = (Vec::new(), 0u16, Partial::default());
                    loop {
                        if t0.elapsed().as_secs_f64() > limit_s {
                            break;
                        }
                        let ui = next.fetch_add(1, Relaxed);
                        if ui >= units.len() {
                            break;
                        }
                        for f in &files[units[ui].0..units[ui].1] {
                            let Some(&ctx) = map.get(&(f.class.clone(), f.ts.clone())) else {
                                *locked(&fails).entry(format!("no context {} {}", f.class, f.ts)).or_default() += 1;
                                continue;
                            };
                            mid = mid.wrapping_add(1);
                            let cmd = command(&[
                                (2, f.class.clone().into_bytes()),
                                (0x100, u(1)),
                                (0x110, u(mid)),
                                (0x700, u(0)),
                                (0x800, u(1)),
                                (0x1000, f.inst.clone().into_bytes()),
                            ]);
                            let t = Instant::now();
                            k.send_msg(ctx, &cmd, Some(&f.bytes[f.off..]))?;
                            match k.next_msg(&mut part)? {
                                Msg::Cmd(_, m) => {
                                    let st = us(&m, 0x900);
                                    if st != 0 {
                                        *locked(&fails).entry(format!("status {st:04x}")).or_default() += 1;
                                    }
                                }
                                _ => return Err("unexpected message".into()),
                            }
                            l.push(t.elapsed().as_secs_f64());
                            sent.fetch_add((f.bytes.len() - f.off) as u64, Relaxed);
                            tenths.done(cnt.fetch_add(1, Relaxed) as usize + 1, t0.elapsed());
                        }
                    }
                    locked(&lat).extend(l);
                    k.release();
                    Ok(())
                })();
                if let Err(e) = r {
                    *locked(&fails).entry(e.to_string()).or_default() += 1;
                }
            });
        }
    });
    let dt = t0.elapsed().as_secs_f64();
    let (b, n) = (sent.into_inner() as f64, cnt.into_inner() as f64);
    let mut l = opened(lat);
    Ok(format!(
        "{{\"op\":\"store\",\"assoc\":{n_assoc},\"instances\":{n},\"mb\":{:.3},\"seconds\":{dt:.4},\"inst_s\":{:.2},\"mb_s\":{:.2},{},{},\"client_cpu_s\":{:.2},\"peer_max_pdu\":{},\"failures\":{:?}}}",
        b / 1e6,
        n / dt,
        b / 1e6 / dt,
        dist("latency_ms", &mut l),
        tenths.json(),
        cpu_s() - c0,
        maxpdu.into_inner(),
        opened(fails)
    ))
}
