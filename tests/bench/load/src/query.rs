//! C-FIND, C-GET and C-MOVE: each line of a file is a request, and the requests are shared among the associations.

use crate::R;
use crate::report::{Args, cpu_s, dist, locked, opened};
use crate::sink::{Sink, listen, store_rsp};
use crate::wire::{
    Assoc, Ctx, EVLE, IVLE, Msg, Partial, STORAGE, STUDY_FIND, STUDY_GET, STUDY_MOVE, command, el, u, us,
};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Context and command of a C-STORE-RQ whose data set is still coming.
type Storing = (u8, HashMap<u16, Vec<u8>>);

pub(crate) fn tag_of(k: &str) -> Option<(u16, u16)> {
    Some(match k {
        "StudyDate" => (8, 0x20),
        "StudyTime" => (8, 0x30),
        "AccessionNumber" => (8, 0x50),
        "QueryRetrieveLevel" => (8, 0x52),
        "SpecificCharacterSet" => (8, 5),
        "ModalitiesInStudy" => (8, 0x61),
        "StudyDescription" => (8, 0x1030),
        "PatientName" => (0x10, 0x10),
        "PatientID" => (0x10, 0x20),
        "PatientBirthDate" => (0x10, 0x30),
        "StudyInstanceUID" => (0x20, 0xd),
        "SeriesInstanceUID" => (0x20, 0xe),
        "SOPInstanceUID" => (8, 0x18),
        "Modality" => (8, 0x60),
        "NumberOfStudyRelatedInstances" => (0x20, 0x1208),
        "StudyID" => (0x20, 0x10),
        _ => return None,
    })
}
pub(crate) fn identifier(level: &str, line: &str, ret: &[&str]) -> R<Vec<u8>> {
    let mut m: BTreeMap<(u16, u16), String> = BTreeMap::new();
    for r in ret {
        m.insert(tag_of(r).ok_or(*r)?, String::new());
    }
    m.insert((8, 0x52), level.into());
    for kv in line.split(';').filter(|x| !x.is_empty()) {
        let (k, v) = kv.split_once('=').ok_or("key=value expected")?;
        m.insert(tag_of(k).ok_or(k.to_string())?, v.into());
    }
    let mut o = Vec::new();
    for ((g, e), v) in m {
        let pad = if (g, e) == (0x20, 0xd) || (g, e) == (0x20, 0xe) || (g, e) == (8, 0x18) { 0 } else { b' ' };
        el(g, e, v.as_bytes(), pad, &mut o);
    }
    Ok(o)
}

/// C-FIND, C-GET, C-MOVE: one line of --queries is one request; lines are shared among the associations.
pub(crate) fn query(a: &Args, op: &str) -> R<String> {
    let mut qs: Vec<String> = a.all("query");
    let qf = a.get("queries", "");
    if !qf.is_empty() {
        qs.extend(std::fs::read_to_string(qf)?.lines().filter(|l| !l.is_empty()).map(String::from));
    }
    let repeat = a.num("repeat", 1);
    let reqs: Vec<&String> = (0..repeat).flat_map(|_| qs.iter()).collect();
    let level = a.get("level", "STUDY");
    let rets = a.get(
        "return",
        "StudyDate,StudyTime,AccessionNumber,PatientName,PatientID,StudyInstanceUID,StudyDescription,StudyID",
    );
    let ret: Vec<&str> = if op == "find" { rets.split(',').collect() } else { vec![] };
    let (class, field) = match op {
        "find" => (STUDY_FIND, 0x20u16),
        "get" => (STUDY_GET, 0x10),
        _ => (STUDY_MOVE, 0x21),
    };
    let dest = a.get("dest", "DSINK");
    let n_assoc = a.num("assoc", 1);
    let limit_s = a.num("max-seconds", 600) as f64;
    let sink = Arc::new(Sink::default());
    if op == "move" && a.get("no-sink", "").is_empty() {
        listen(&a.get("listen", "127.0.0.1:11119"), Arc::clone(&sink))?;
    }
    let (next, lat, first, fails) = (
        AtomicUsize::new(0),
        Mutex::new(Vec::new()),
        Mutex::new(Vec::new()),
        Mutex::new(BTreeMap::<String, usize>::new()),
    );
    let (bytes, insts, matches) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let c0 = cpu_s();
    let t0 = Instant::now();
    std::thread::scope(|sc| {
        for _ in 0..n_assoc {
            sc.spawn(|| {
                let r: R<()> = (|| {
                    let mut ctxs = vec![Ctx { class: class.into(), ts: vec![IVLE.into()] }];
                    if op == "get" {
                        for c in STORAGE {
                            ctxs.push(Ctx { class: c.to_string(), ts: vec![EVLE.into(), IVLE.into()] });
                            ctxs.push(Ctx { class: c.to_string(), ts: vec!["1.2.840.10008.1.2.4.50".into()] });
                        }
                    }
                    let mut k = Assoc::connect(
                        &a.get("addr", "127.0.0.1:4242"),
                        &a.get("called", "ANY"),
                        &a.get("calling", "DLOAD"),
                        &ctxs,
                        op == "get",
                    )?;
                    if !k.ctx.contains_key(&1) {
                        return Err(format!("{op} context refused").into());
                    }
                    let (mut l, mut fl, mut mid, mut part) = (Vec::new(), Vec::new(), 0u16, Partial::default());
                    loop {
                        let i = next.fetch_add(1, Relaxed);
                        if i >= reqs.len() || t0.elapsed().as_secs_f64() > limit_s {
                            break;
                        }
                        mid = mid.wrapping_add(1);
                        let mut els = vec![(2, class.as_bytes().to_vec()), (0x100, u(field)), (0x110, u(mid))];
                        if op == "move" {
                            els.push((0x600, format!("{dest:<16}").into_bytes()));
                        }
                        els.push((0x700, u(0)));
                        els.push((0x800, u(1)));
                        let id = identifier(&level, reqs[i], &ret)?;
                        let t = Instant::now();
                        k.send_msg(1, &command(&els), Some(&id))?;
                        let (mut got_first, mut store): (bool, Option<Storing>) = (false, None);
                        loop {
                            match k.next_msg(&mut part)? {
                                Msg::Cmd(c, m) if us(&m, 0x100) == 1 => store = Some((c, m)),
                                Msg::Cmd(_, m) => {
                                    if !got_first {
                                        fl.push(t.elapsed().as_secs_f64());
                                        got_first = true;
                                    }
                                    let st = us(&m, 0x900);
                                    if st & 0xff00 == 0xff00 {
                                        if op == "find" {
                                            matches.fetch_add(1, Relaxed);
                                        }
                                        continue;
                                    }
                                    if op == "move" {
                                        insts.fetch_add(us(&m, 0x1021) as u64, Relaxed);
                                    }
                                    if st != 0 {
                                        *locked(&fails).entry(format!("status {st:04x}")).or_default() += 1;
                                    }
                                    break;
                                }
                                Msg::Data(_, n) => {
                                    if let Some((c, m)) = store.take() {
                                        if !got_first {
                                            fl.push(t.elapsed().as_secs_f64());
                                            got_first = true;
                                        }
                                        bytes.fetch_add(n, Relaxed);
                                        insts.fetch_add(1, Relaxed);
                                        k.send_msg(c, &store_rsp(&m), None)?;
                                    }
                                }
                                Msg::Release => return Err("released or aborted by the peer".into()),
                            }
                        }
                        l.push(t.elapsed().as_secs_f64());
                    }
                    locked(&lat).extend(l);
                    locked(&first).extend(fl);
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
    if op == "move" {
        bytes.fetch_add(sink.bytes.load(Relaxed), Relaxed);
    }
    let (b, n) = (bytes.into_inner() as f64, insts.into_inner() as f64);
    let (mut l, mut f) = (opened(lat), opened(first));
    let done = l.len() as f64;
    Ok(format!(
        "{{\"op\":\"{op}\",\"assoc\":{n_assoc},\"requests\":{done},\"seconds\":{dt:.4},\"req_s\":{:.2},\"matches\":{},\"instances\":{n},\"mb\":{:.3},\"inst_s\":{:.2},\"mb_s\":{:.2},{},{},\"client_cpu_s\":{:.2},\"failures\":{:?}}}",
        done / dt,
        matches.into_inner(),
        b / 1e6,
        n / dt,
        b / 1e6 / dt,
        dist("latency_ms", &mut l),
        dist("first_ms", &mut f),
        cpu_s() - c0,
        opened(fails)
    ))
}
