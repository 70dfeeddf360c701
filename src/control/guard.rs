//! Who may ask what, looked at before any route is: the form of the target for everybody; over TCP also Host, Origin and
//! token. Owns no connection and sees no body.

use std::borrow::Cow;
use std::net::IpAddr;

use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, ORIGIN, REFERRER_POLICY, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::uri::Authority;
use axum::http::{HeaderName, HeaderValue, Method, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::places::Standing;
use super::routes::problem;
use super::token::Token;
use crate::config::Reads;

/// Reads that cost the packets: over TCP they want what writes want, also where other reads are open to everybody on the
/// machine.
pub(super) const COSTLY: [&str; 1] = ["/v1/trace"];

/// What the TCP door asks of a request.
#[derive(Debug)]
pub(super) struct Guard {
    pub(super) token: Option<Token>,
    pub(super) reads: Reads,
    /// Names and addresses that the door answers to beside its own.
    pub(super) hosts: Vec<String>,
}

/// What a request shows for its right to ask.
enum Shown<'a> {
    Nothing,
    /// The bytes after `Bearer`.
    Bearer(&'a [u8]),
    /// The password of `Basic`, which browsers ask for by themselves and send by themselves from then on.
    Basic(Vec<u8>),
    Nonsense,
}

/// Why a request reaches no route.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    said: Cow<'static, str>,
    /// The ways in that are offered.
    ways: &'static [&'static str],
}

impl Refusal {
    fn new(status: StatusCode, said: impl Into<Cow<'static, str>>) -> Self {
        Self { status, said: said.into(), ways: &[] }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut refusal = problem(self.status, self.said);
        for way in self.ways {
            refusal.headers_mut().append(WWW_AUTHENTICATE, HeaderValue::from_static(way));
        }
        refusal
    }
}

/// The ways to show the token. A browser asks its user for a password where `Basic` is offered.
const BEARER: &str = "Bearer realm=\"dpdk-conntrack\"";
const BASIC: &str = "Basic realm=\"dpdk-conntrack\", charset=\"UTF-8\"";

/// Refuses a target that is written in more than one way or could be read as another one. It is never rewritten: what
/// the routes see is what came.
pub(super) fn target<B>(request: &Request<B>) -> Result<(), Refusal> {
    let path = request.uri().path();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte);
    let segment = |part: &str| !["", ".", ".."].contains(&part) && part.bytes().all(plain);
    let is_plain = path == "/" || path.strip_prefix('/').is_some_and(|path| path.split('/').all(segment));
    if is_plain { Ok(()) } else { Err(Refusal::new(StatusCode::BAD_REQUEST, STRANGE_PATH)) }
}

const STRANGE_PATH: &str = "the path is not in its plain form: write it without %, //, . and ..";

impl Guard {
    /// `local` is the address that the client reached. Gives whether the token was shown.
    pub(super) fn check<B>(&self, local: IpAddr, request: &Request<B>) -> Result<Standing, Refusal> {
        let host = host(request).map_err(|said| Refusal::new(StatusCode::BAD_REQUEST, said))?;
        // A page of another site whose name was made to lead here comes with that name. threats: DNS rebinding
        if !self.is_ours(&host, local) {
            let said =
                format!("{host} is no name of this door: ask for {local}, or add it to `control.hosts`");
            return Err(Refusal::new(StatusCode::FORBIDDEN, said));
        }
        if !self.same_origin(&host, request) {
            let said = "another site's page asks: open the page of this address instead";
            return Err(Refusal::new(StatusCode::FORBIDDEN, said));
        }
        self.authorize(request)
    }

    fn is_ours(&self, host: &Authority, local: IpAddr) -> bool {
        let name = host.host();
        if self.hosts.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            return true;
        }
        let local = local.to_canonical();
        match name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            Ok(address) => address.to_canonical() == local,
            Err(_) => local.is_loopback() && name.eq_ignore_ascii_case("localhost"),
        }
    }

    /// A browser says whose page asks: in `Origin` wherever it matters, and newer ones in `Sec-Fetch-Site` too. A link on
    /// another page may lead here, though to nothing that costs the packets; what that page fetches by itself (an image, a
    /// frame) could make us list for nobody. <https://www.w3.org/TR/fetch-metadata/>
    fn same_origin<B>(&self, host: &Authority, request: &Request<B>) -> bool {
        let said = |name| request.headers().get(name).map(HeaderValue::as_bytes);
        let foreign = !matches!(said("sec-fetch-site"), None | Some(b"same-origin" | b"none"));
        let opened = matches!(said("sec-fetch-dest"), None | Some(b"document"));
        if foreign && (is_weighty(request) || !opened) {
            return false;
        }
        request.headers().get_all(ORIGIN).iter().all(|origin| {
            let authority = origin
                .to_str()
                .ok()
                .and_then(|text| text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")));
            let Some(Ok(authority)) = authority.map(str::parse::<Authority>) else { return false };
            authority == *host || self.hosts.iter().any(|known| known.eq_ignore_ascii_case(authority.host()))
        })
    }

    fn authorize<B>(&self, request: &Request<B>) -> Result<Standing, Refusal> {
        let weighty = is_weighty(request);
        let shown = shown(request);
        let right = match (&shown, &self.token) {
            // Whoever shows something wrong is told, also where nothing is demanded.
            (Shown::Nothing, _) | (_, None) => !weighty && self.reads == Reads::Open,
            (Shown::Bearer(given), Some(token)) => token.is(given),
            // What a browser sends by itself, another site's page can make it send: good enough to read.
            (Shown::Basic(given), Some(token)) => !weighty && token.is(given),
            (Shown::Nonsense, Some(_)) => false,
        };
        if right {
            // Without a token there is nothing to know anybody by, whatever was shown.
            let known = self.token.is_some() && !matches!(shown, Shown::Nothing);
            return Ok(if known { Standing::Known } else { Standing::Anybody });
        }
        let said = match (&shown, &self.token) {
            (_, None) => {
                "writes and traces over TCP need a token, and there is none: set `control.token_file`, or use the socket"
            }
            (Shown::Nothing, _) => {
                "the token is missing: send `Authorization: Bearer` and what `control.token_file` holds"
            }
            (Shown::Basic(_), _) if weighty => {
                "a write or a trace needs `Authorization: Bearer` and the token"
            }
            _ => "the token is wrong: send `Authorization: Bearer` and what `control.token_file` holds",
        };
        let ways: &[&str] = if weighty || self.token.is_none() { &[BEARER] } else { &[BEARER, BASIC] };
        Err(Refusal { ways, ..Refusal::new(StatusCode::UNAUTHORIZED, said) })
    }
}

/// GET and HEAD change nothing, whatever their path.
fn is_write(method: &Method) -> bool {
    *method != Method::GET && *method != Method::HEAD
}

/// What only `Authorization: Bearer` opens.
fn is_weighty<B>(request: &Request<B>) -> bool {
    is_write(request.method()) || COSTLY.contains(&request.uri().path())
}

/// What the client believes it speaks to; one name, wherever it stands.
fn host<B>(request: &Request<B>) -> Result<Authority, &'static str> {
    let mut said = request.headers().get_all(HOST).iter();
    let (Some(first), None) = (said.next(), said.next()) else {
        return Err("there must be one Host: send it once");
    };
    let host = first.to_str().ok().and_then(|text| text.parse::<Authority>().ok());
    let Some(host) = host.filter(|host| !host.as_str().contains('@')) else {
        return Err("the Host is no name with an optional port");
    };
    match request.uri().authority() {
        Some(target) if *target != host => Err("the target names another host than the Host does"),
        _ => Ok(host),
    }
}

fn shown<B>(request: &Request<B>) -> Shown<'_> {
    let mut said = request.headers().get_all(AUTHORIZATION).iter();
    let first = match (said.next(), said.next()) {
        (None, _) => return Shown::Nothing,
        (Some(first), None) => first.as_bytes(),
        _ => return Shown::Nonsense,
    };
    let Some(space) = first.iter().position(|&byte| byte == b' ') else { return Shown::Nonsense };
    let (scheme, rest) = (&first[..space], first[space..].trim_ascii());
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Shown::Bearer(rest);
    }
    let decoded = scheme.eq_ignore_ascii_case(b"basic").then(|| BASE64_STANDARD.decode(rest).ok()).flatten();
    let Some(mut pair) = decoded else { return Shown::Nonsense };
    // Any user will do: the token is all there is to know. RFC 7617 section 2
    match pair.iter().position(|&byte| byte == b':') {
        Some(colon) => Shown::Basic(pair.split_off(colon + 1)),
        None => Shown::Nonsense,
    }
}

/// What browsers are told about every answer that does not say it itself.
pub(super) fn dress(response: &mut Response) {
    let headers = response.headers_mut();
    for (name, value) in [
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    fn guard(token: bool, reads: Reads) -> Guard {
        let token = token.then(|| Token::from(TOKEN));
        Guard { token, reads, hosts: vec!["conntrack.example.net".to_owned()] }
    }

    /// The status of the refusal, 200 for none; `lines` are headers.
    fn ask(guard: &Guard, method: &str, lines: &[&str]) -> u16 {
        ask_for(guard, method, "/v1/timeouts", lines)
    }

    fn ask_for(guard: &Guard, method: &str, path: &str, lines: &[&str]) -> u16 {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in lines.iter().filter_map(|line| line.split_once(": ")) {
            request = request.header(name, value);
        }
        let local = IpAddr::from([127, 0, 0, 1]);
        guard.check(local, &request.body(()).unwrap()).map_or_else(|refused| refused.status.as_u16(), |_| 200)
    }

    #[test]
    fn only_the_doors_own_names_are_answered() {
        let guard = guard(false, Reads::Open);
        for host in [
            "127.0.0.1",
            "127.0.0.1:9477",
            "localhost:9477",
            "LOCALHOST",
            "conntrack.example.net",
            "Conntrack.Example.Net:80",
            "[::ffff:127.0.0.1]:9477",
        ] {
            assert_eq!(ask(&guard, "GET", &[&format!("host: {host}")]), 200, "{host}");
        }
        for (host, status) in [
            ("evil.example", 403),
            ("127.0.0.1.evil.example", 403),
            ("127.0.0.2", 403),
            ("[::1]", 403),
            ("localhost.", 403),
            ("example.net", 403),
            ("x.conntrack.example.net", 403),
            ("root@127.0.0.1", 400),
            ("a b", 400),
            ("", 400),
        ] {
            assert_eq!(ask(&guard, "GET", &[&format!("host: {host}")]), status, "{host}");
        }
        assert_eq!(ask(&guard, "GET", &[]), 400);
        assert_eq!(ask(&guard, "GET", &["host: 127.0.0.1", "host: 127.0.0.1"]), 400);
    }

    #[test]
    fn pages_of_other_sites_are_refused_and_ours_is_not() {
        let guard = guard(true, Reads::Open);
        let bearer = &format!("authorization: Bearer {TOKEN}");
        let ask = |method, origin: &str| ask(&guard, method, &["host: 127.0.0.1:9477", bearer, origin]);
        for ours in
            ["origin: http://127.0.0.1:9477", "origin: https://conntrack.example.net", "sec-fetch-site: none"]
        {
            assert_eq!((ask("GET", ours), ask("PUT", ours)), (200, 200), "{ours}");
        }
        for other in [
            "origin: null",
            "origin: http://evil.example",
            "origin: http://127.0.0.1:3000",
            "origin: http://127.0.0.1",
            "origin: http://127.0.0.1:9477.evil.example",
            "origin: file://127.0.0.1:9477",
            "origin: ",
        ] {
            assert_eq!((ask("GET", other), ask("PUT", other)), (403, 403), "{other}");
        }
        for site in ["sec-fetch-site: cross-site", "sec-fetch-site: same-site"] {
            assert_eq!(
                (ask("GET", site), ask("PUT", site)),
                (200, 403),
                "a link may lead here, a write may not"
            );
            for (dest, expected) in [("document", 200), ("image", 403), ("iframe", 403), ("empty", 403)] {
                let dest = format!("sec-fetch-dest: {dest}");
                let lines = ["host: 127.0.0.1:9477", bearer, site, dest.as_str()];
                assert_eq!(self::ask(&guard, "GET", &lines), expected, "{site} {dest}");
            }
        }
        let ours = ["host: 127.0.0.1:9477", "sec-fetch-site: same-origin", "sec-fetch-dest: empty"];
        assert_eq!(self::ask(&guard, "GET", &ours), 200, "our page asks for its numbers");
    }

    #[test]
    fn writes_need_the_token_and_reads_where_it_is_said() {
        let right = &format!("authorization: Bearer {TOKEN}");
        let wrong = "authorization: Bearer 0123456789abcdef0123456789abcdeF";
        let basic = &format!("authorization: basic {}", BASE64_STANDARD.encode(format!("me:{TOKEN}")));
        let twice = &format!("{right}, Bearer {TOKEN}");
        let none = "accept: */*";
        let open = guard(true, Reads::Open);
        let closed = guard(true, Reads::Token);
        let bare = guard(false, Reads::Open);
        // What is shown, then for each guard what a read and a write get.
        for (shown, expected) in [
            (none, [(200, 401), (401, 401), (200, 401)]),
            (right.as_str(), [(200, 200), (200, 200), (200, 401)]),
            (wrong, [(401, 401), (401, 401), (200, 401)]),
            (basic.as_str(), [(200, 401), (200, 401), (200, 401)]),
            (twice.as_str(), [(401, 401), (401, 401), (200, 401)]),
            ("authorization: Bearer", [(401, 401), (401, 401), (200, 401)]),
            ("authorization: Basic ====", [(401, 401), (401, 401), (200, 401)]),
            ("authorization: Digest x", [(401, 401), (401, 401), (200, 401)]),
        ] {
            for (guard, (read, write)) in [&open, &closed, &bare].into_iter().zip(expected) {
                let ask = |method| ask(guard, method, &["host: localhost", shown]);
                assert_eq!((ask("GET"), ask("HEAD")), (read, read), "{shown} {guard:?}");
                for method in ["PUT", "POST", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"] {
                    assert_eq!(ask(method), write, "{method} {shown} {guard:?}");
                }
            }
        }
        assert_eq!(ask(&closed, "GET", &["host: localhost", right, right]), 401, "two are not one");
    }

    #[test]
    fn what_costs_the_packets_wants_what_a_write_wants() {
        let right = &format!("authorization: Bearer {TOKEN}");
        let basic = &format!("authorization: basic {}", BASE64_STANDARD.encode(format!("me:{TOKEN}")));
        let link = ["sec-fetch-site: cross-site", "sec-fetch-dest: document"];
        let (open, closed, bare) =
            (guard(true, Reads::Open), guard(true, Reads::Token), guard(false, Reads::Open));
        let host = "host: localhost";
        for path in COSTLY.iter().flat_map(|path| [path.to_string(), format!("{path}?secs=3600")]) {
            for method in ["GET", "HEAD", "PUT"] {
                let ask = |guard, lines: &[&str]| ask_for(guard, method, &path, lines);
                for guard in [&open, &closed] {
                    let got = [&[host][..], &[host, basic], &[host, right]].map(|lines| ask(guard, lines));
                    assert_eq!(got, [401, 401, 200], "{method} {path} {guard:?}");
                    assert_eq!(
                        ask(guard, &[host, right, link[0], link[1]]),
                        403,
                        "{method} {path} {guard:?}"
                    );
                }
                assert_eq!([&[host][..], &[host, right]].map(|lines| ask(&bare, lines)), [401, 401]);
            }
        }
    }

    #[test]
    fn only_paths_in_plain_form_reach_the_routes() {
        let get = |path: &str| Request::builder().uri(path).body(()).unwrap();
        for plain in ["/", "/v1/info", "/metrics", "/v1/flows?src=10.0.0.0%2F8"] {
            assert!(target(&get(plain)).is_ok(), "{plain}");
        }
        for strange in [
            "//v1/info",
            "/v1//info",
            "/./v1/info",
            "/v1/../metrics",
            "/v1/%69nfo",
            "/v1/info/",
            "/%2e%2e/etc/passwd",
            "/v1/info%00",
            "*",
        ] {
            assert!(target(&get(strange)).is_err(), "{strange}");
        }
    }
}
