//! Control's doors as a client finds them: real bytes to a running appliance, over TCP and over the unix socket.

mod patient;
mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use support::{Daemon, PATIENCE, udp, write_pcap};

const TOKEN: &str = "0123456789abcdef0123456789abcdef0123456789abcdef";

/// An appliance with a TCP door.
struct Doors {
    daemon: Daemon,
    addr: SocketAddr,
}

/// Starts one that reads `frames` from its inside port; `more` are lines of `[control]`, DIR is its folder.
fn doors(frames: &[Vec<u8>], more: &str) -> Doors {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap().to_owned();
    write_pcap(&folder.path().join("inside.pcap"), frames);
    let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, TOKEN).unwrap();
    std::fs::set_permissions(&token, PermissionsExt::from_mode(0o600)).unwrap();
    let http = if more.contains("http =") { String::new() } else { format!("http = \"{addr}\"") };
    let text = format!(
        r#"
workers = 1
# No flow ends by itself while a test looks at what it has changed.
timeouts.udp.unreplied = "1h"
[[port]]
name = "in"
device = "net_pcap0,rx_pcap={dir}/inside.pcap,tx_pcap={dir}/to-inside.pcap"
role = "inside"
peer = "out"
[[port]]
name = "out"
device = "net_null0,no-rx=1"
role = "outside"
peer = "in"
[eal]
hugepages = false
[worker]
idle = "sleep"
[control]
socket = "{dir}/control.sock"
{http}
{more}
"#
    )
    .replace("DIR", &dir)
    .replace("PORT", &addr.port().to_string());
    std::fs::write(folder.path().join("config.toml"), text).unwrap();
    Doors { daemon: Daemon::start_in(folder), addr }
}

const WITH_TOKEN: &str = "token_file = \"DIR/token\"\n";

/// Sends `head` and `body`, and gives the status (0 for none) and the whole answer.
fn exchange(mut stream: impl Read + Write, head: &str, body: &str) -> (u16, String) {
    // An early refusal may close the way while this still writes.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    (status, answer)
}

impl Doors {
    fn tcp(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// One request over TCP with these header lines, `Host` and `Content-Type` as they should be unless they are given.
    /// Asks again where a worker was silent.
    fn ask(&self, method: &str, path: &str, lines: &[&str], body: &str) -> (u16, String) {
        let mut head =
            format!("{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
        for (name, line) in [
            ("host:", format!("Host: {}\r\n", self.addr)),
            ("content-type:", "Content-Type: application/json\r\n".to_owned()),
        ] {
            if !lines.iter().any(|given| given.to_ascii_lowercase().starts_with(name)) {
                head += &line;
            }
        }
        lines.iter().for_each(|line| head += &format!("{line}\r\n"));
        head += "\r\n";
        patient::answered(|| exchange(self.tcp(), &head, body))
    }

    /// What a write could have changed.
    fn state(&self) -> [String; 4] {
        let ports: Vec<_> =
            self.daemon.json("/v1/ports").as_array().unwrap().iter().map(|p| p["running"].clone()).collect();
        [
            self.daemon.get("/v1/config"),
            self.daemon.get("/v1/limits"),
            self.daemon.json("/v1/stats")["entries"].to_string(),
            format!("{ports:?}"),
        ]
    }

    /// Every operation of the API's description: method, path and what success is.
    fn operations(&self) -> Vec<(String, String, String)> {
        let document = self.daemon.json("/v1/openapi.json");
        let mut all = Vec::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let content = operation["responses"]["200"]["content"].as_object().unwrap();
                all.push((method.to_ascii_uppercase(), path.clone(), content.keys().next().unwrap().clone()));
            }
        }
        all
    }

    /// Connections at the doors that the appliance has not ended, over TCP and on the socket: the states of
    /// include/net/tcp_states.h and include/uapi/linux/net.h.
    fn connections(&self) -> (usize, usize) {
        let read = |table: &str| std::fs::read_to_string(format!("/proc/net/{table}")).unwrap();
        let rows = |text: &str, wanted: &dyn Fn(&[&str]) -> bool| {
            text.lines().filter(|row| wanted(&row.split_whitespace().collect::<Vec<_>>())).count()
        };
        let (port, path) = (format!(":{:04X}", self.addr.port()), self.daemon.socket());
        let (established, connected) = ("01", "03");
        (
            rows(&read("tcp"), &|row| row[1].ends_with(&port) && row[3] == established),
            rows(&read("unix"), &|row| row[5] == connected && row.get(7).map(Path::new) == Some(&path)),
        )
    }

    fn file_descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.daemon.child.id())).unwrap().count()
    }

    fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.daemon.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

fn bearer() -> String {
    format!("Authorization: Bearer {TOKEN}")
}

#[test]
fn every_declared_route_is_there_at_both_doors_and_answers_in_the_declared_form() {
    let doors = doors(&[udp(1, 2, 1000, 53)], WITH_TOKEN);
    doors.daemon.wait("/v1/stats", |stats| stats["entries"] == 1);
    let all = doors.operations();
    for known in ["/metrics", "/v1/info", "/v1/flows", "/v1/events", "/v1/timeouts", "/v1/openapi.json"] {
        assert!(all.iter().any(|(_, path, _)| path == known), "{known} is not declared: {all:?}");
    }
    let port = doors.addr.port();
    for (method, path, kind) in all {
        // The one route that wants to be told something.
        let asked = if path.ends_with("/what-if") { "?set=tcp.close_wait=60s" } else { "" };
        let path = format!("{path}{asked}");
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost:{port}\r\n{}\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}",
            bearer()
        );
        let answer = |mut stream: Box<dyn ReadWrite>| {
            stream.write_all(head.as_bytes()).unwrap();
            let mut answer = vec![0; 4096];
            let read = stream.read(&mut answer).unwrap();
            String::from_utf8_lossy(&answer[..read]).to_ascii_lowercase()
        };
        let unix = || {
            let unix = UnixStream::connect(doors.daemon.socket()).unwrap();
            unix.set_read_timeout(Some(PATIENCE)).unwrap();
            unix
        };
        // A worker may be silent; and traces are one at a time, so that the first must be seen to have gone.
        let again = |answer: &String| {
            patient::is_silence(answer) || path == "/v1/trace" && answer.starts_with("http/1.1 409")
        };
        let tcp = patient::until(|| answer(Box::new(doors.tcp())), |answer| !again(answer));
        let unix = patient::until(|| answer(Box::new(unix())), |answer| !again(answer));
        for (door, answer) in [("tcp", tcp), ("unix", unix)] {
            let line = answer.lines().next().unwrap_or_default();
            if method == "GET" {
                assert!(line.starts_with("http/1.1 200"), "{method} {path} by {door}: {answer}");
                assert!(
                    answer.contains(&format!("content-type: {kind}")),
                    "{method} {path} by {door}: {answer}"
                );
            } else {
                assert!(
                    !line.contains(" 404") && !line.contains(" 405"),
                    "{method} {path} by {door}: {answer}"
                );
            }
            assert!(
                answer.contains("x-content-type-options: nosniff"),
                "{method} {path} by {door}: {answer}"
            );
        }
    }
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

#[test]
fn no_write_comes_over_tcp_without_the_token() {
    for more in ["", WITH_TOKEN, "token_file = \"DIR/token\"\nreads = \"token\"\n"] {
        let doors = doors(&[udp(1, 2, 1000, 53), udp(1, 2, 1001, 53)], more);
        doors.daemon.wait("/v1/stats", |stats| stats["entries"] == 2);
        let before = doors.state();
        let basic = "Authorization: Basic Onh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHg=";
        let almost = format!("Authorization: Bearer {}", TOKEN.replace('f', "e"));
        for (method, path, _) in doors.operations().into_iter().filter(|(method, ..)| method != "GET") {
            let body = match path.as_str() {
                "/v1/timeouts" => r#"{"name":"tcp.established","value":"1h"}"#,
                "/v1/limits" => r#"{"limit":1}"#,
                "/v1/ports" => r#"{"name":"in","running":false}"#,
                "/v1/sysctls" => r#"{"settings":[{"name":"nf_conntrack_tcp_loose","value":"0"}]}"#,
                "/v1/flows" if method == "PATCH" => r#"{"mark":"9"}"#,
                _ => "{}",
            };
            for shown in [
                "X-No: token",
                "Authorization: Bearer",
                basic,
                &almost,
                "Authorization: Bearer x",
                "Authorization: ",
            ] {
                let (status, answer) = doors.ask(&method, &path, &[shown], body);
                assert_eq!(status, 401, "{method} {path} {shown}: {answer}");
                assert!(answer.to_ascii_lowercase().contains("www-authenticate: bearer"), "{answer}");
            }
        }
        assert_eq!(doors.state(), before);
        // With it, all of this works: the refusals are the token's doing.
        if !more.is_empty() {
            let (status, answer) =
                doors.ask("PUT", "/v1/timeouts", &[&bearer()], r#"{"name":"tcp.established","value":"1h"}"#);
            assert_eq!(status, 200, "{answer}");
            assert_eq!(doors.ask("POST", "/v1/flush", &[&bearer()], "").0, 200);
            assert_ne!(doors.state(), before);
        }
    }
}

#[test]
fn reads_need_the_token_where_it_is_said_and_beyond_loopback() {
    for more in [
        "token_file = \"DIR/token\"\nreads = \"token\"\n",
        "token_file = \"DIR/token\"\nhttp = \"0.0.0.0:PORT\"\n",
    ] {
        let doors = doors(&[], more);
        // "me:" and the token, as a browser sends what its user was asked for.
        let basic =
            "Authorization: Basic bWU6MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWYwMTIzNDU2Nzg5YWJjZGVm";
        for path in ["/metrics", "/v1/info", "/v1/overview/history", "/v1/flows", "/v1/no-such-thing"] {
            assert_eq!(doors.ask("GET", path, &[], "").0, 401, "{path}");
            assert_eq!(doors.ask("HEAD", path, &[], "").0, 401, "{path}");
            let expected = if path.ends_with("thing") { 404 } else { 200 };
            assert_eq!(doors.ask("GET", path, &[&bearer()], "").0, expected, "{path}");
            assert_eq!(doors.ask("GET", path, &[basic], "").0, expected, "{path}");
        }
        // Those that have no end are only refused here.
        for path in ["/v1/dropped?past=true", "/v1/trace", "/v1/events", "/v1/overview/stream"] {
            assert_eq!(doors.ask("GET", path, &[], "").0, 401, "{path}");
        }
        assert_eq!(doors.ask("GET", "/v1/trace?secs=0.05", &[&bearer()], "").0, 200);
        assert_eq!(doors.daemon.ask("POST", "/v1/flush", "").0, 200, "the socket's mode is its guard");
    }
}

#[test]
fn a_trace_needs_the_token_over_tcp_wherever_other_reads_are_open() {
    for more in ["", WITH_TOKEN] {
        let doors = doors(&[], more);
        let basic =
            "Authorization: Basic bWU6MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWYwMTIzNDU2Nzg5YWJjZGVm";
        for path in ["/v1/trace", "/v1/trace?secs=3600", "/v1/trace?dport=53&secs=3600&count=1000000"] {
            for method in ["GET", "HEAD"] {
                for shown in ["X-No: token", basic] {
                    let (status, answer) = doors.ask(method, path, &[shown], "");
                    assert_eq!(status, 401, "{method} {path} {shown}: {answer}");
                    let ways: Vec<_> = answer
                        .lines()
                        .filter(|line| line.to_ascii_lowercase().starts_with("www-authenticate:"))
                        .collect();
                    assert!(
                        matches!(ways[..], [way] if way.contains("Bearer")),
                        "a browser has nothing to ask its user for: {answer}"
                    );
                }
            }
        }
        assert_eq!(doors.ask("GET", "/v1/dropped?nonsense=1", &[], "").0, 400, "other reads are open");
        // None of them took the one turn: the operator's trace begins at once.
        assert_eq!(doors.daemon.ask("GET", "/v1/trace?secs=0.05", "").0, 200);
        if !more.is_empty() {
            let linked = ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Dest: document", &bearer()];
            assert_eq!(doors.ask("GET", "/v1/trace", &linked, "").0, 403, "another site's link");
            assert_eq!(doors.ask("GET", "/v1/trace?secs=0.05", &[&bearer()], "").0, 200);
        }
        assert_eq!(
            doors.daemon.log().matches("packets are followed").count(),
            1 + usize::from(!more.is_empty())
        );
    }
}

#[test]
fn a_missing_token_is_made_and_never_told() {
    let doors = doors(&[], "token_file = \"DIR/made\"\n");
    let path = doors.daemon.folder.path().join("made");
    let token = std::fs::read_to_string(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let with = format!("Authorization: Bearer {}", token.trim());
    assert_eq!(doors.ask("POST", "/v1/flush", &[&with], "{}").0, 200);
    for text in [
        doors.daemon.log(),
        doors.ask("GET", "/v1/config", &[&with], "").1,
        doors.ask("POST", "/v1/x", &["Authorization: Bearer x"], "").1,
    ] {
        assert!(!text.contains(token.trim()), "{text}");
    }
    assert!(doors.daemon.log().contains("a token was made"), "{}", doors.daemon.log());
}

#[test]
fn a_token_that_others_can_read_stops_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().display();
    std::fs::write(folder.path().join("token"), TOKEN).unwrap();
    std::fs::set_permissions(folder.path().join("token"), PermissionsExt::from_mode(0o644)).unwrap();
    let text = format!(
        "mode = \"mirror\"\n[[port]]\nname = \"p\"\ndevice = \"net_null0\"\n[eal]\nhugepages = false\n\
         [control]\nsocket = \"{dir}/control.sock\"\nhttp = \"127.0.0.1:1\"\ntoken_file = \"{dir}/token\"\n"
    );
    // The address is another test's or nobody's: only the token is looked at here.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    std::fs::write(folder.path().join("config.toml"), text.replace("127.0.0.1:1", &free.to_string()))
        .unwrap();
    let status = support::command(folder.path()).status().unwrap();
    let said = std::fs::read_to_string(folder.path().join("log")).unwrap();
    assert!(!status.success() && said.contains("chmod 600") && !said.contains(TOKEN), "{said}");
}

#[test]
fn other_hosts_and_other_sites_are_refused() {
    let doors = doors(&[], "token_file = \"DIR/token\"\nhosts = [\"ct.example.net\"]\n");
    let port = doors.addr.port();
    let bearer = bearer();
    let body = r#"{"name":"tcp.established","value":"1h"}"#;
    let before = doors.state();
    let evil = format!("Host: evil.example:{port}");
    let own = format!("Origin: http://{}", doors.addr);
    for (lines, status) in [
        (vec![evil.as_str()], 403),
        (vec!["Host: 192.0.2.1"], 403),
        (vec!["Host: localhost", "Host: evil.example"], 400),
        (vec!["Host: evil.example@127.0.0.1"], 400),
        (vec!["Origin: http://evil.example"], 403),
        (vec!["Origin: null"], 403),
        (vec!["Origin: http://127.0.0.1:1"], 403),
        (vec!["Origin: http://127.0.0.1.evil.example"], 403),
    ] {
        assert_eq!(doors.ask("GET", "/v1/info", &lines, "").0, status, "{lines:?}");
        let with: Vec<_> = lines.iter().copied().chain([bearer.as_str()]).collect();
        assert_eq!(doors.ask("PUT", "/v1/timeouts", &with, body).0, status, "{lines:?}");
    }
    assert_eq!(doors.ask("PUT", "/v1/timeouts", &["Sec-Fetch-Site: cross-site", &bearer], body).0, 403);
    // A browser asks first whether another site may; nothing here says yes.
    let ask_first = ["Origin: http://evil.example", "Access-Control-Request-Method: PUT"];
    let (status, answer) = doors.ask("OPTIONS", "/v1/timeouts", &ask_first, "");
    assert!(status == 403 && !answer.to_ascii_lowercase().contains("access-control-allow"), "{answer}");
    let (status, _) = exchange(
        doors.tcp(),
        &format!("GET http://evil.example/v1/info HTTP/1.1\r\nHost: {}\r\n\r\n", doors.addr),
        "",
    );
    assert_eq!(status, 400, "the target names another host");
    assert_eq!(exchange(doors.tcp(), "GET /v1/info HTTP/1.0\r\n\r\n", "").0, 400, "no Host at all");
    assert_eq!(doors.state(), before);
    for (host, origin) in
        [("Host: ct.example.net", "Origin: https://ct.example.net"), (&format!("Host: {}", doors.addr), &own)]
    {
        assert_eq!(doors.ask("PUT", "/v1/timeouts", &[host, origin, &bearer], body).0, 200, "{host}");
    }
}

#[test]
fn a_body_is_json_and_short_or_it_is_refused() {
    let doors = doors(&[], WITH_TOKEN);
    let bearer = bearer();
    let put = |lines: &[&str], body: &str| {
        let lines: Vec<_> = lines.iter().copied().chain([bearer.as_str()]).collect();
        doors.ask("PUT", "/v1/timeouts", &lines, body).0
    };
    let good = r#"{"name":"tcp.established","value":"1h"}"#;
    assert_eq!(put(&["Content-Type: application/json; charset=utf-8"], good), 200);
    for kind in
        ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonx", ""]
    {
        assert_eq!(put(&[&format!("Content-Type: {kind}")], good), 415, "{kind}");
    }
    for bad in [
        "",
        "{",
        "[]",
        "null",
        "{}",
        "\u{0}",
        r#"{"name":1,"value":"1h"}"#,
        &good.replace('}', r#","x":1}"#),
        &"[".repeat(60_000),
    ] {
        assert_eq!(put(&[], bad), 400, "{}", &bad[..bad.len().min(60)]);
    }
    assert_eq!(put(&[], &format!("{good}{}", " ".repeat(64 << 10))), 413);
    let announced = format!(
        "PUT /v1/timeouts HTTP/1.1\r\nHost: {}\r\n{bearer}\r\nContent-Type: application/json\r\nContent-Length: 1000000000000\r\n\r\n",
        doors.addr
    );
    // Refused without waiting for it: what is waited for and does not come is a 408.
    assert_eq!(exchange(doors.tcp(), &announced, good).0, 413);
    // Without a length it is refused once it is too long, however much would follow.
    let chunked = announced.replace("Content-Length: 1000000000000", "Transfer-Encoding: chunked");
    let chunk = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
    assert_eq!(exchange(doors.tcp(), &chunked, &chunk.repeat(5)).0, 413);
    assert_eq!(doors.daemon.json("/v1/info")["pid"], doors.daemon.child.id());
}

#[test]
fn a_head_is_short_or_it_is_refused() {
    let doors = doors(&[], WITH_TOKEN);
    let head = |path: &str, line: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{line}\r\n", doors.addr)
    };
    let filler = |kib: usize| "x".repeat(kib << 10);
    let lines = |kib| format!("X-Filler: {}\r\n", filler(kib));
    for (head, status) in [
        (head("/v1/info", &lines(15)), 200),
        (head("/v1/info", &lines(33)), 431),
        (head(&format!("/v1/info?{}", filler(33)), ""), 431),
        (head("/v1/info", &"X: y\r\n".repeat(6 << 10)), 431),
        // One that never ends is not waited for: that would end without an answer.
        (head("/v1/info", &lines(33)).trim_end().to_owned(), 431),
    ] {
        let unix = UnixStream::connect(doors.daemon.socket()).unwrap();
        for (door, (got, answer)) in
            [("TCP", exchange(doors.tcp(), &head, "")), ("the socket", exchange(unix, &head, ""))]
        {
            let begins = &head[..head.len().min(80)];
            assert_eq!(got, status, "{door}: {} bytes: {begins}: {answer}", head.len());
        }
    }
    assert_eq!(doors.daemon.json("/v1/info")["pid"], doors.daemon.child.id());
}

#[test]
fn slow_heads_and_bodies_end_and_keep_nobody_waiting() {
    let doors = doors(&[], WITH_TOKEN);
    // A machine that stands still makes an end late; one that never comes is that of the client's own patience.
    let ended = |least: f64, begun: Instant| {
        let took = begun.elapsed();
        assert!((least..55.0).contains(&took.as_secs_f64()), "{took:?}");
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let begun = Instant::now();
            let (status, answer) = exchange(doors.tcp(), "GET /v1/info HTTP/1.1\r\nHost: x\r\n", "");
            ended(4.0, begun);
            assert_ne!(status, 200, "a head that does not end: {answer}");
        });
        scope.spawn(|| {
            // Half a line a second is no way to stay either.
            let begun = Instant::now();
            let mut stream = doors.tcp();
            while begun.elapsed() < PATIENCE && stream.write_all(b"GET").is_ok() {
                std::thread::sleep(Duration::from_millis(500));
            }
            ended(4.0, begun);
        });
        let body = scope.spawn(|| {
            let head = format!(
                "PUT /v1/timeouts HTTP/1.1\r\nHost: {}\r\n{}\r\nContent-Type: application/json\r\nContent-Length: 30\r\n\r\n",
                doors.addr,
                bearer()
            );
            let begun = Instant::now();
            let (status, answer) = exchange(doors.tcp(), &head, "{\"name\":");
            ended(9.0, begun);
            assert_eq!(status, 408, "a body that does not end: {answer}");
        });
        let mut answers = 0;
        while !body.is_finished() {
            assert_eq!(doors.ask("GET", "/v1/info", &[], "").0, 200);
            answers += u32::from(!body.is_finished());
            std::thread::sleep(Duration::from_millis(100));
        }
        assert!(answers >= 3, "who came meanwhile was kept waiting: {answers} answers");
    });
}

#[test]
fn a_crowd_of_silent_connections_keeps_nobody_out_and_costs_little() {
    let doors = doors(&[], WITH_TOKEN);
    doors.ask("GET", "/v1/stats", &[], "");
    let (memory, files) = (doors.resident_kib(), doors.file_descriptors());
    let silent = |number| {
        let begun = Instant::now();
        let mut stream = doors.tcp();
        if number % 2 == 0 {
            // It may have been shown out already.
            let _ = stream.write_all(b"GET /v1/info HTTP/1.1\r\n");
        }
        (begun, stream)
    };
    let shown_out_early = |(begun, stream): &(Instant, TcpStream)| {
        stream.set_nonblocking(true).unwrap();
        let read = (&*stream).read(&mut [0]);
        let over = !read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        over && begun.elapsed() < Duration::from_secs(5)
    };
    // Room is made at once: a newcomer does not wait until the five seconds of somebody's head are over. A machine may
    // stand still for so long, but not each time.
    let mut more = 0..4;
    let crowd = loop {
        let crowd: Vec<_> = (0..800).map(silent).collect();
        for _ in 0..21 {
            assert_eq!(doors.ask("GET", "/v1/info", &[], "").0, 200);
        }
        if crowd.iter().any(shown_out_early) {
            break crowd;
        }
        assert!(more.next().is_some(), "nobody makes room before a head's time is over");
    };
    assert!(doors.file_descriptors() <= files + 130, "{} descriptors more", doors.file_descriptors() - files);
    assert!(doors.resident_kib() < memory + (32 << 10), "from {memory} to {} KiB", doors.resident_kib());
    drop(crowd);
}

#[test]
fn streams_without_end_keep_nobody_out_and_who_showed_the_token_goes_on() {
    let doors = doors(&[], WITH_TOKEN);
    let stream = |more: &str| {
        let mut stream = doors.tcp();
        let head = format!("GET /v1/overview/stream HTTP/1.1\r\nHost: {}\r\n{more}\r\n", doors.addr);
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = [0; 15];
        stream.read_exact(&mut answer).expect("the newcomer is answered");
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        stream
    };
    let mut known = stream(&format!("{}\r\n", bearer()));
    let crowd: Vec<TcpStream> = (0..200).map(|_| stream("")).collect();
    for _ in 0..20 {
        assert_eq!(doors.ask("GET", "/metrics", &[], "").0, 200);
    }
    // What is there already, then three events more, and no end.
    let (mut text, mut room, mut enough) = (Vec::new(), [0; 4096], usize::MAX);
    let events = |text: &[u8]| String::from_utf8_lossy(text).matches("data: ").count();
    known.set_nonblocking(true).unwrap();
    while events(&text) < enough {
        match known.read(&mut room) {
            Err(error) if error.kind() == ErrorKind::WouldBlock && enough == usize::MAX => {
                known.set_nonblocking(false).unwrap();
                enough = events(&text) + 3;
            }
            Ok(read) if read > 0 => text.extend_from_slice(&room[..read]),
            ended => panic!("it was ended, {ended:?}: {}", String::from_utf8_lossy(&text)),
        }
    }
    drop(crowd);
}

#[test]
fn who_reads_nothing_of_a_listing_is_given_up() {
    let frames: Vec<_> = (1..=30_000).map(|port| udp(1, 2, port, 53)).collect();
    let doors = doors(&frames, WITH_TOKEN);
    doors.daemon.wait("/v1/stats", |stats| stats["entries"] == 30_000);
    let tcp = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    tcp.set_recv_buffer_size(4096).unwrap();
    tcp.connect(&doors.addr.into()).unwrap();
    let mut tcp = TcpStream::from(tcp);
    write!(tcp, "GET /v1/flows HTTP/1.1\r\nHost: {}\r\n\r\n", doors.addr).unwrap();
    let mut unix = UnixStream::connect(doors.daemon.socket()).unwrap();
    write!(unix, "GET /v1/flows HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    // Those that asked before leave meanwhile.
    patient::until(|| doors.connections(), |both| *both == (1, 1));
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(doors.connections(), (1, 1), "both are waited for at first");
    let begun = Instant::now();
    while doors.connections() != (0, 0) {
        assert!(begun.elapsed() < 2 * PATIENCE, "they are still waited for");
        assert_eq!(doors.ask("GET", "/v1/info", &[], "").0, 200);
        std::thread::sleep(Duration::from_millis(500));
    }
    for mut stream in [Box::new(tcp) as Box<dyn Read>, Box::new(unix)] {
        let mut text = Vec::new();
        let _ = stream.read_to_end(&mut text);
        assert!(
            text.len() > 1000 && !text.ends_with(b"0\r\n\r\n"),
            "a listing that was cut short looks whole"
        );
    }
}

#[test]
fn a_path_is_read_in_one_way_only() {
    let doors = doors(&[], "token_file = \"DIR/token\"\nreads = \"token\"\n");
    let bearer = bearer();
    for path in [
        "/./metrics",
        "//metrics",
        "/v1/../metrics",
        "/%6detrics",
        "/metrics/",
        "/metrics%2f",
        "/..%2f..%2fetc/passwd",
        "/../../etc/passwd",
        "/v1/info;/../flush",
        "/metrics%00",
        "/v1\\info",
        "/%2e%2e/token",
        "*",
    ] {
        let (status, answer) = doors.ask("GET", path, &[&bearer], "");
        assert!(status == 400 || status == 404, "{path}: {answer}");
        let status = doors.ask("GET", path, &[], "").0;
        assert!([400, 401].contains(&status), "{path} without the token: {status}");
    }
}

/// A stream of bytes from a seed, so that a red run can be had again. <https://prng.di.unimi.it/splitmix64.c>
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % sides as u64) as usize
    }
}

#[test]
fn broken_requests_without_the_token_change_nothing_and_break_nothing() {
    let doors = doors(&[udp(1, 2, 1000, 53)], "token_file = \"DIR/token\"\nreads = \"token\"\n");
    doors.daemon.wait("/v1/stats", |stats| stats["entries"] == 1);
    let before = doors.state();
    let writes = [
        ("POST", "/v1/flush", "{}"),
        ("DELETE", "/v1/flows", ""),
        ("PUT", "/v1/timeouts", r#"{"name":"tcp.established","value":"1h"}"#),
        ("PUT", "/v1/ports", r#"{"name":"in","running":false}"#),
    ];
    for seed in 0..1500 {
        let mut dice = Dice(seed);
        let (method, path, body) = writes[dice.roll(writes.len())];
        let text = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Authorization: Bearer wrong\r\nConnection: close\r\n\r\n{body}",
            doors.addr,
            body.len()
        );
        let mut bytes = text.into_bytes();
        for _ in 0..1 + dice.roll(6) {
            let at = dice.roll(bytes.len().max(1));
            match dice.roll(5) {
                _ if bytes.len() < 2 => {}
                0 => bytes[at] = dice.roll(256) as u8,
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, *b"\r\n :/.%\0?".get(dice.roll(9)).unwrap()),
                3 => bytes.truncate(at.max(1)),
                _ => {
                    let piece = bytes[at..(at + 20).min(bytes.len())].to_vec();
                    let to = dice.roll(bytes.len());
                    bytes.splice(to..to, piece);
                }
            }
        }
        let mut stream = doors.tcp();
        let _ = stream.write_all(&bytes);
        // What is cut short would be waited for.
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        let status = answer.split(' ').nth(1).and_then(|word| word.parse::<u16>().ok());
        assert!(status.is_none_or(|status| (400..500).contains(&status)), "seed {seed}: {answer}");
    }
    assert_eq!(doors.state(), before);
}
