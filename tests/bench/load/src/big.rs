//! Large multi-frame objects, made while they are sent: nothing of their size is ever in memory here, so what grows is the
//! server's doing.

use crate::R;
use crate::report::{Args, cpu_s, dist, locked, opened};
use crate::wire::{Assoc, Ctx, EVLE, Msg, Partial, command, u, us};
use std::collections::BTreeMap;
use std::io::{self, IoSlice, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Multi-frame Grayscale Byte Secondary Capture.
const CLASS: &str = "1.2.840.10008.5.1.4.1.1.7.2";
const SIDE: usize = 1024;
const FRAME_BYTES: usize = SIDE * SIDE;

/// `--assoc` associations at once, each with one object of `--mib` frames of 1 MiB.
pub(crate) fn big(a: &Args) -> R<String> {
    let (n_assoc, frames) = (a.num("assoc", 8), a.num("mib", 1024));
    let root = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
    let noise = noise();
    let (took, fails, sent) = (Mutex::new(Vec::new()), Mutex::new(BTreeMap::<String, usize>::new()), AtomicU64::new(0));
    let (cpu, begun) = (cpu_s(), Instant::now());
    std::thread::scope(|scope| {
        for i in 0..n_assoc {
            let (took, fails, sent, noise) = (&took, &fails, &sent, &noise);
            scope.spawn(move || match one(a, &format!("2.25.{root}.{}", i + 1), frames, noise) {
                Ok((seconds, bytes)) => {
                    locked(took).push(seconds);
                    sent.fetch_add(bytes, Relaxed);
                }
                Err(e) => *locked(fails).entry(e.to_string()).or_default() += 1,
            });
        }
    });
    let (seconds, mb) = (begun.elapsed().as_secs_f64(), sent.into_inner() as f64 / 1e6);
    let mut took = opened(took);
    Ok(format!(
        "{{\"op\":\"big\",\"assoc\":{n_assoc},\"instances\":{},\"mb\":{mb:.3},\"seconds\":{seconds:.4},\"mb_s\":{:.2},{},\"client_cpu_s\":{:.2},\"failures\":{:?}}}",
        took.len(),
        mb / seconds,
        dist("latency_ms", &mut took),
        cpu_s() - cpu,
        opened(fails)
    ))
}

/// Stores one object; seconds and bytes of its data set.
fn one(a: &Args, uid: &str, frames: usize, noise: &[u8]) -> R<(f64, u64)> {
    let contexts = [Ctx { class: CLASS.into(), ts: vec![EVLE.into()] }];
    let mut assoc =
        Assoc::connect(&a.get("addr", ""), &a.get("called", "ANY"), &a.get("calling", "DLOAD"), &contexts, false)?;
    if !assoc.ctx.contains_key(&1) {
        return Err(format!("no context {CLASS}").into());
    }
    let pixel_bytes = u32::try_from(frames * FRAME_BYTES).map_err(|_| "--mib: at most 4095")?;
    let head = head(uid, frames, pixel_bytes);
    let request =
        command(&[(2, CLASS.into()), (0x100, u(1)), (0x110, u(1)), (0x700, u(0)), (0x800, u(1)), (0x1000, uid.into())]);
    let begun = Instant::now();
    assoc.send_msg(1, &request, None)?;
    pdv(&mut assoc, &head, false)?;
    let piece = assoc.max_pdv.min(noise.len() - FRAME_BYTES);
    for frame in 0..frames {
        // Each frame is another window of the noise, so that no two are the same.
        let pixels = &noise[frame * 7919 % FRAME_BYTES..][..FRAME_BYTES];
        let count = FRAME_BYTES.div_ceil(piece);
        for (k, chunk) in pixels.chunks(piece).enumerate() {
            pdv(&mut assoc, chunk, frame + 1 == frames && k + 1 == count)?;
        }
    }
    match assoc.next_msg(&mut Partial::default())? {
        Msg::Cmd(_, answer) if us(&answer, 0x900) == 0 => {}
        Msg::Cmd(_, answer) => return Err(format!("status {:04x}", us(&answer, 0x900)).into()),
        Msg::Data(..) | Msg::Release => return Err("unexpected message".into()),
    }
    let seconds = begun.elapsed().as_secs_f64();
    assoc.release();
    Ok((seconds, (head.len() + frames * FRAME_BYTES) as u64))
}

/// One P-DATA-TF PDU with one piece of the data set.
fn pdv(assoc: &mut Assoc, bytes: &[u8], last: bool) -> io::Result<()> {
    let mut pdu = [4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, if last { 2 } else { 0 }];
    pdu[2..6].copy_from_slice(&(bytes.len() as u32 + 6).to_be_bytes());
    pdu[6..10].copy_from_slice(&(bytes.len() as u32 + 2).to_be_bytes());
    let mut both = [IoSlice::new(&pdu), IoSlice::new(bytes)];
    let mut rest = &mut both[..];
    while !rest.is_empty() {
        let n = assoc.s.write_vectored(rest)?;
        IoSlice::advance_slices(&mut rest, n);
    }
    Ok(())
}

/// The data set up to the value of Pixel Data, explicit VR little endian.
fn head(uid: &str, frames: usize, pixel_bytes: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let mut put = |group: u16, element: u16, vr: &[u8; 2], value: &[u8]| {
        out.extend_from_slice(&group.to_le_bytes());
        out.extend_from_slice(&element.to_le_bytes());
        out.extend_from_slice(vr);
        out.extend_from_slice(&((value.len() + value.len() % 2) as u16).to_le_bytes());
        out.extend_from_slice(value);
        if value.len() % 2 == 1 {
            out.push(if vr == b"UI" { 0 } else { b' ' });
        }
    };
    let us = |n: usize| (n as u16).to_le_bytes();
    put(8, 0x16, b"UI", CLASS.as_bytes());
    put(8, 0x18, b"UI", uid.as_bytes());
    put(8, 0x20, b"DA", b"20260101");
    put(8, 0x60, b"CS", b"OT");
    put(0x10, 0x10, b"PN", b"BIG^OBJECT");
    put(0x10, 0x20, b"LO", b"BIG");
    put(0x20, 0xd, b"UI", format!("{uid}.1").as_bytes());
    put(0x20, 0xe, b"UI", format!("{uid}.2").as_bytes());
    put(0x20, 0x13, b"IS", b"1");
    put(0x28, 2, b"US", &us(1));
    put(0x28, 4, b"CS", b"MONOCHROME2");
    put(0x28, 8, b"IS", frames.to_string().as_bytes());
    put(0x28, 0x10, b"US", &us(SIDE));
    put(0x28, 0x11, b"US", &us(SIDE));
    put(0x28, 0x100, b"US", &us(8));
    put(0x28, 0x101, b"US", &us(8));
    put(0x28, 0x102, b"US", &us(7));
    put(0x28, 0x103, b"US", &us(0));
    out.extend_from_slice(&[0xe0, 0x7f, 0x10, 0, b'O', b'B', 0, 0]);
    out.extend_from_slice(&pixel_bytes.to_le_bytes());
    out
}

/// Two frames' worth of noise (xorshift64*), the same each time.
fn noise() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut out = Vec::with_capacity(2 * FRAME_BYTES);
    while out.len() < 2 * FRAME_BYTES {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        out.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    out
}
