//! The doors: the unix socket and TCP. Owns connections and their deadlines; knows no route.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdTcpListener};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio_io_timeout::TimeoutWriter;

use super::desk::Entrance;
use super::guard::{self, Guard};
use super::places::{Place, Places, Standing};
use super::token::{Token, TokenError};
use super::{State, routes};
use crate::config::Control;
use crate::privileges::User;

/// How long a client may take for its request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a client may take nothing of what is written to it; then it is given up, whatever it reads.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// When a silent TCP client is asked whether it is still there, and how often and how long; then its place is free.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(60), Duration::from_secs(10), 3);

/// The longest request head.
const HEAD_BYTES: usize = 16 << 10;

/// Rest after an accept that failed (out of descriptors, say), so that it is not retried in a tight loop.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Why the doors cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("another dpdk-conntrack answers on {0}: stop it first, or set `control.socket` to another path")]
    AlreadyRunning(PathBuf),
    #[error("{0} exists and is not a socket: remove it, or set `control.socket` to another path")]
    NotASocket(PathBuf),
    #[error(
        "the folder of {path} cannot be made ({error}): run as root, or set `control.socket` to a path that this user may write"
    )]
    Folder { path: PathBuf, error: io::Error },
    #[error(
        "the socket {path} cannot be opened ({error}): run as root, or set `control.socket` to a path that this user may write"
    )]
    Socket { path: PathBuf, error: io::Error },
    #[error("{addr} cannot be listened on ({error}): set `control.http` to a free address, or to \"off\"")]
    Http { addr: SocketAddr, error: io::Error },
    #[error(transparent)]
    Token(#[from] TokenError),
}

/// The doors, open but not yet answered; taking them first shows early that another appliance runs.
#[derive(Debug)]
pub struct Claimed {
    unix: StdUnixListener,
    socket: SocketFile,
    http: Option<StdTcpListener>,
    guard: Guard,
}

impl Claimed {
    /// The TCP door's address, once more with the port that the system chose if 0 was asked for.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http.as_ref().and_then(|http| http.local_addr().ok())
    }
}

/// The socket's file, removed at the end.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // At the end there is nobody to tell; the next start replaces a file that nobody answers on.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Opens the doors. A socket file that nobody answers on is replaced, a token that is missing is made, for `user` if this
/// process will become one.
pub fn claim(control: &Control, user: Option<&User>) -> Result<Claimed, ControlError> {
    let socket = control.socket.as_path();
    let path = || socket.to_owned();
    let failed = |error| ControlError::Socket { path: path(), error };
    if let Some(folder) = socket.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|error| ControlError::Folder { path: path(), error })?;
    }
    match std::fs::symlink_metadata(socket) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => return Err(ControlError::NotASocket(path())),
        Ok(_) => match StdUnixStream::connect(socket) {
            Ok(_) => return Err(ControlError::AlreadyRunning(path())),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(socket).map_err(failed)?;
            }
            Err(error) => return Err(failed(error)),
        },
    }
    let unix = StdUnixListener::bind(socket).map_err(failed)?;
    let file = SocketFile(path());
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o660)).map_err(failed)?;
    unix.set_nonblocking(true).map_err(failed)?;
    let http = control.http.map(listen).transpose()?;
    // Without the TCP door there is nobody to show it.
    let token_file = control.token_file.as_deref().filter(|_| http.is_some());
    let token = token_file.map(|path| Token::of(path, user)).transpose()?;
    let guard = Guard { token, reads: control.reads, hosts: control.hosts.clone() };
    Ok(Claimed { unix, socket: file, http, guard })
}

/// Whether an appliance could open its TCP door there now.
pub fn check_http(addr: SocketAddr) -> Result<(), ControlError> {
    listen(addr).map(drop)
}

fn listen(addr: SocketAddr) -> Result<StdTcpListener, ControlError> {
    let failed = |error| ControlError::Http { addr, error };
    let listener = StdTcpListener::bind(addr).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

/// Answers at both doors until `until` is done.
pub(super) async fn run(
    claimed: Claimed,
    state: Arc<State>,
    until: impl Future<Output = ()>,
) -> Result<(), ControlError> {
    let Claimed { unix, socket, http, guard } = claimed;
    let failed = |error| ControlError::Socket { path: socket.0.clone(), error };
    let unix = UnixListener::from_std(unix).map_err(failed)?;
    let http = match http {
        None => None,
        Some(listener) => {
            let addr = listener.local_addr().map_err(failed)?;
            Some(TcpListener::from_std(listener).map_err(|error| ControlError::Http { addr, error })?)
        }
    };
    let routes = routes::router(state);
    let here = Door::new(routes.clone(), None);
    let unix_door = async {
        loop {
            match unix.accept().await {
                Ok((stream, _)) => here.admit(stream, None).await,
                Err(_) => tokio::time::sleep(ACCEPT_REST).await,
            }
        }
    };
    let there = Door::new(routes, Some(Arc::new(guard)));
    let http_door = async {
        let Some(listener) = http else { return std::future::pending().await };
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => there.admit_from(stream, peer.ip()).await,
                Err(_) => tokio::time::sleep(ACCEPT_REST).await,
            }
        }
    };
    tokio::select! {
        () = until => Ok(()),
        () = unix_door => Ok(()),
        () = http_door => Ok(()),
    }
}

/// One door's routes, who watches it, and who is inside.
struct Door {
    routes: Router,
    guard: Option<Arc<Guard>>,
    places: Arc<Places>,
}

impl Door {
    fn new(routes: Router, guard: Option<Arc<Guard>>) -> Self {
        Self { routes, guard, places: Arc::default() }
    }

    async fn admit_from(&self, stream: TcpStream, peer: IpAddr) {
        let (idle, interval, probes) = KEEPALIVE;
        // A connection that is gone already shows it when it is read.
        let _ = stream.set_nodelay(true);
        let _ = sockopt::set_socket_keepalive(&stream, true);
        let _ = sockopt::set_tcp_keepidle(&stream, idle);
        let _ = sockopt::set_tcp_keepintvl(&stream, interval);
        let _ = sockopt::set_tcp_keepcnt(&stream, probes);
        let Ok(local) = stream.local_addr() else { return };
        self.admit(stream, Some((peer, local.ip()))).await;
    }

    /// `ends` are the addresses of the client and of the door, where there are such.
    async fn admit<S>(&self, stream: S, ends: Option<(IpAddr, IpAddr)>)
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let visit = Visit {
            routes: TowerToHyperService::new(self.routes.clone()),
            guard: self.guard.clone().zip(ends.map(|(_, local)| local)),
            place: self.places.take(ends.map(|(peer, _)| peer)),
        };
        tokio::spawn(visit.serve(stream));
        // A crowd at the door does not keep those inside from being served.
        tokio::task::yield_now().await;
    }
}

/// One connection.
struct Visit {
    routes: TowerToHyperService<Router>,
    /// With the address that the client reached.
    guard: Option<(Arc<Guard>, IpAddr)>,
    place: Place,
}

impl Visit {
    async fn serve<S>(self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let mut stream = Box::pin(TimeoutWriter::new(stream));
        stream.as_mut().set_timeout_pinned(Some(WRITE_TIMEOUT));
        let answered = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service_fn(|request| self.answer(request)));
        tokio::select! {
            // A connection that breaks is the client's business.
            _ = answered => {}
            () = self.place.wanted() => {}
        }
    }

    async fn answer(&self, mut request: Request<Incoming>) -> Result<Response, std::convert::Infallible> {
        let admitted = guard::target(&request).and_then(|()| match &self.guard {
            Some((guard, local)) => guard.check(*local, &request).map(|shown| (Entrance::Tcp, shown)),
            None => Ok((Entrance::Socket, Standing::Known)),
        });
        let standing = admitted.as_ref().map_or(Standing::Anybody, |&(_, standing)| standing);
        let asking = self.place.asking(standing);
        let mut response = match admitted {
            Ok((entrance, _)) => {
                request.extensions_mut().insert(entrance);
                self.routes.call(request).await?
            }
            Err(refused) => refused.into_response(),
        };
        guard::dress(&mut response);
        // It is being answered until the last of the body is gone.
        Ok(response.map(|body| {
            Body::new(body.map_err(move |error| {
                let _answered = &asking;
                error
            }))
        }))
    }
}
