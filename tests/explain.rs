//! `replay --explain`: each packet of a capture with what every stage made of it, to the letter. What `trace` prints of a
//! running appliance comes from the same formatter.

mod pcap;

use std::net::Ipv4Addr;
use std::process::Command;

use pcap::*;

const MS: u64 = 1_000_000;
const START: u64 = 1_700_000_000 * 1000 * MS;

fn explained(file: &TempFile, words: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_dpdk-conntrack"))
        .args(["replay", "--explain"])
        .arg(&file.0)
        .args(words)
        .output()
        .expect("the program starts");
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {err}");
    String::from_utf8(output.stdout).unwrap()
}

fn capture(name: &str, packets: &[Vec<u8>]) -> TempFile {
    let frames: Vec<_> = (0..).zip(packets).map(|(at, frame)| (START + at * 8 * MS, frame.clone())).collect();
    TempFile::new(name, &Pcap::default().file(&frames))
}

/// Half of a datagram; its checksum counts for the whole.
fn piece(offset: usize, more: bool) -> Vec<u8> {
    let whole = udp(CLIENT, SERVER, 5000, 53, &[7; 16]);
    let payload = if more { &whole[20..20 + 16] } else { &whole[20 + offset..] };
    let mut packet = whole[..20].to_vec();
    packet.extend(payload);
    let length = packet.len() as u16;
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet[4..8].copy_from_slice(&[0, 9, if more { 0x20 } else { 0 }, (offset / 8) as u8]);
    packet[10..12].copy_from_slice(&[0, 0]);
    let sum: u32 = packet[..20].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    packet[10..12].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
    ethernet(&packet)
}

fn icmp_unreachable(quoted: &[u8]) -> Vec<u8> {
    let mut part = vec![3, 3, 0, 0, 0, 0, 0, 0];
    part.extend(quoted);
    // ICMP has no pseudo header, so its sum is made by hand.
    let mut packet = ipv4(Ipv4Addr::new(10, 9, 9, 9), CLIENT, 1, part, 2);
    packet[22..24].copy_from_slice(&[0, 0]);
    let sum: u32 =
        packet[20..].chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0))).sum();
    packet[22..24].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
    ethernet(&packet)
}

#[test]
fn every_stage_of_every_kind_of_packet_is_told_to_the_letter() {
    let tcp = |from_client, flags, seq, ack, payload| ethernet(&tcp(from_client, flags, seq, ack, payload));
    let mut broken = tcp(true, SYN, 7, 0, b"");
    broken[14 + 20 + 16] ^= 1;
    let mut header = tcp(true, SYN, 7, 0, b"");
    header[14 + 10] ^= 1;
    let mut tagged = ethernet(&udp(CLIENT, SERVER, 6000, 53, b"x"));
    tagged.splice(12..12, [0x81, 0, 0, 10]);
    let mut arp = vec![0xff; 12];
    arp.extend([8, 6]);
    arp.resize(60, 0);
    let first = pcap::tcp(true, SYN, 1000, 0, b"");
    let packets = [
        tcp(true, SYN, 1000, 0, b""),
        tcp(true, SYN, 1000, 0, b""),
        tcp(false, SYN | ACK, 5000, 1001, b""),
        tcp(true, ACK, 1001, 5001, b""),
        tcp(true, ACK, 1001, 5001, b"hello"),
        tcp(true, ACK, 901_001, 5001, b"far"),
        tcp(false, ACK, 5001, 77_777, b""),
        icmp_unreachable(&first),
        tcp(false, RST, 4000, 0, b""),
        tcp(true, RST, 1006, 0, b""),
        tcp(false, FIN | RST, 1, 0, b""),
        broken,
        header,
        tagged,
        arp,
        piece(0, true),
        piece(16, false),
        icmp_unreachable(&udp(CLIENT, SERVER, 9, 9, b"")),
        tcp(true, SYN, 4_000_000, 0, b""),
    ];
    let file = capture("explain.pcap", &packets);
    let got = explained(&file, &["--profile", "linux", "--until", "0s"]);
    assert_eq!(got.lines().filter(|line| line.starts_with('[')).count(), 1, "one packet until 0 s: {got}");
    let got = explained(&file, &["--profile", "linux"]);
    let table_from = got.find("\ntcp ").map_or(got.len(), |at| at + 1);
    let got = &got[..table_from];
    let want = include_str!("explain.txt");
    // A flow's id is nothing that the capture says.
    let masked = |text: &str| {
        let words = text.split(' ').collect::<Vec<_>>();
        let mut out: Vec<String> = Vec::new();
        for (at, word) in words.iter().enumerate() {
            out.push(if at > 0 && words[at - 1] == "id" { "ID:".to_owned() } else { (*word).to_owned() });
        }
        out.join(" ")
    };
    assert_eq!(masked(got), want, "tests/explain.txt should be:\n{}", masked(got));
}

#[test]
fn machines_get_the_same_as_a_line_of_json() {
    let file = capture("explain-json.pcap", &[ethernet(&tcp(true, SYN, 1000, 0, b""))]);
    let out = explained(&file, &["-o", "jsonl"]);
    let line: serde_json::Value = serde_json::from_str(out.lines().next().unwrap()).unwrap();
    assert_eq!(line["event"], "packet");
    assert_eq!(line["ip"]["tcp"]["flags"], "SYN");
    assert_eq!(line["steps"]["entry"], "made");
    assert_eq!(line["steps"]["after"]["state"], "SYN_SENT");
    assert_eq!(line["verdict"]["is"], "forward");
}
