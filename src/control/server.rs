//! The doors: the unix socket for operators and loopback TCP for metrics. Owns connections and their limits; knows no
//! route.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;

use super::{State, routes};

/// Connections at once, at each door; more wait for one to end.
const CONNECTIONS: usize = 256;

/// How long a client may take for its request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

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
}

/// The doors, open but not yet answered; taking them first shows early that another appliance runs.
#[derive(Debug)]
pub struct Claimed {
    unix: StdUnixListener,
    socket: SocketFile,
    http: Option<StdTcpListener>,
}

impl Claimed {
    /// Where metrics are, once more with the port that the system chose if 0 was asked for.
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

/// Opens the doors. A socket file that nobody answers on is replaced.
pub fn claim(socket: &Path, http: Option<SocketAddr>) -> Result<Claimed, ControlError> {
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
    let http = match http {
        None => None,
        Some(addr) => {
            let failed = |error| ControlError::Http { addr, error };
            let listener = StdTcpListener::bind(addr).map_err(failed)?;
            listener.set_nonblocking(true).map_err(failed)?;
            Some(listener)
        }
    };
    Ok(Claimed { unix, socket: file, http })
}

/// Answers at both doors until `until` is done.
pub(super) async fn run(
    claimed: Claimed,
    state: Arc<State>,
    until: impl Future<Output = ()>,
) -> Result<(), ControlError> {
    let Claimed { unix, socket, http } = claimed;
    let failed = |error| ControlError::Socket { path: socket.0.clone(), error };
    let unix = UnixListener::from_std(unix).map_err(failed)?;
    let operators = Door::new(routes::operators(Arc::clone(&state)));
    let unix_door = async {
        loop {
            operators.admit(unix.accept().await.map(|(stream, _)| stream)).await;
        }
    };
    let metrics = Door::new(routes::metrics_only(state));
    let http = match http {
        None => None,
        Some(listener) => {
            let addr = listener.local_addr().map_err(failed)?;
            Some(TcpListener::from_std(listener).map_err(|error| ControlError::Http { addr, error })?)
        }
    };
    let http_door = async {
        let Some(listener) = http else { return std::future::pending().await };
        loop {
            metrics.admit(listener.accept().await.map(|(stream, _)| stream)).await;
        }
    };
    tokio::select! {
        () = until => Ok(()),
        () = unix_door => Ok(()),
        () = http_door => Ok(()),
    }
}

/// One door's routes and how many are inside.
struct Door {
    routes: Router,
    places: Arc<Semaphore>,
}

impl Door {
    fn new(routes: Router) -> Self {
        Self { routes, places: Arc::new(Semaphore::new(CONNECTIONS)) }
    }

    async fn admit<S>(&self, accepted: io::Result<S>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Ok(stream) = accepted else { return tokio::time::sleep(ACCEPT_REST).await };
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return };
        let routes = TowerToHyperService::new(self.routes.clone());
        tokio::spawn(async move {
            // A connection that breaks is the client's business.
            let _ = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_buf_size(HEAD_BYTES)
                .serve_connection(TokioIo::new(stream), routes)
                .await;
            drop(place);
        });
    }
}
