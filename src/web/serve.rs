//! Serving the pages, on a thread of their own.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::app::App;
use super::{front, router, server};
use crate::admin::{Admin, Aggregates};
use crate::config::Settings;
use crate::config::web::{prefix_of, refused_without};
use crate::error::{Error, ErrorKind, Result};
use crate::handler::Registry;

/// How often it is looked at a group that nobody looks at.
const WATCH: Duration = Duration::from_secs(10);

/// The pages of a group, bound to their address and not served yet.
///
/// They run on a thread of their own: neither a handler that blocks nor a runtime that is busy keeps them waiting, and
/// they hold up nothing.
///
/// ```no_run
/// use streamhand::Settings;
/// use streamhand::web::Web;
///
/// # async fn example(settings: Settings) -> streamhand::Result<()> {
/// let web = Web::new(&settings)?;
/// println!("http://{}/", web.address());
/// web.run(std::future::pending()).await
/// # }
/// ```
#[must_use]
#[derive(Debug)]
pub struct Web {
    listener: TcpListener,
    address: SocketAddr,
    settings: Settings,
    aggregates: Option<Aggregates>,
    registry: Option<Arc<Registry>>,
}

impl Web {
    /// Where the pages are if nothing is said.
    pub const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9465);

    /// Takes the address of `[web] listen`, or 127.0.0.1:9465. Redis is asked for nothing yet.
    ///
    /// # Errors
    /// Where the settings can't be used, where the address can be reached from other machines and nobody would be asked
    /// who they are, or where it can't be had.
    pub fn new(settings: &Settings) -> Result<Self> {
        let listen = settings.web.listen.unwrap_or(Self::LISTEN);
        if !listen.ip().to_canonical().is_loopback() && !settings.web.authenticates() {
            let message = format!("web.listen: {}", refused_without(listen));
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        // Settings that can't be used are told of before anything runs.
        App::new(settings, None, CancellationToken::new())?;
        let listener = TcpListener::bind(listen).map_err(|error| {
            let message = format!("web.listen: can't listen at {listen}: {error}");
            Error::new(ErrorKind::Internal, message).with_source(error)
        })?;
        let address = listener.local_addr();
        let address = address.and_then(|address| {
            listener.set_nonblocking(true)?;
            Ok(address)
        });
        let address = address.map_err(|error| {
            let message = format!("web.listen: can't listen at {listen}: {error}");
            Error::new(ErrorKind::Internal, message).with_source(error)
        })?;
        Ok(Web {
            listener,
            address,
            settings: settings.clone(),
            aggregates: None,
            registry: None,
        })
    }

    /// The same with the aggregates that a registry has, for their page; with none where it has none.
    ///
    /// # Errors
    /// Where something is wrong with the registry.
    pub fn knowing(mut self, registry: &Registry) -> Result<Self> {
        if registry.aggregates().shared_kinds().next().is_some() {
            let mut settings = self.settings.clone();
            settings.redis = settings.web.redis.over(&settings.redis);
            self.aggregates = Some(Admin::new(&settings)?.aggregates(registry)?);
        }
        Ok(self)
    }

    /// The same with a registry whose handlers say of an edited dead letter whether they could decode it.
    pub fn validating(mut self, registry: Arc<Registry>) -> Self {
        self.registry = Some(registry);
        self
    }

    /// The address, with the port that it got where port 0 asks for any.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves the pages until `shutdown` is over. Open pages do not hold that up; it takes three seconds at most.
    ///
    /// # Errors
    /// Where there can be no thread for it.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<()> {
        let stop = CancellationToken::new();
        // Dropped half-way it stops as well.
        let _stopping = stop.clone().drop_guard();
        let (ended, end) = oneshot::channel();
        let served = stop.clone();
        let made = thread::Builder::new()
            .name("streamhand-web".to_owned())
            .spawn(move || {
                // Nobody may wait any more.
                let _ = ended.send(self.serve(served));
            });
        made.map_err(no_thread)?;
        let mut end = end;
        tokio::select! {
            ended = &mut end => return ended.unwrap_or_else(|_| Err(gone())),
            () = shutdown => stop.cancel(),
        }
        end.await.unwrap_or_else(|_| Err(gone()))
    }

    fn serve(self, stop: CancellationToken) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(no_thread)?;
        let prefix = self.settings.web.prefix.as_deref();
        let prefix = prefix.and_then(|prefix| prefix_of(prefix).ok());
        let result = runtime.block_on(async {
            let app = App::new(&self.settings, self.aggregates, stop.clone())?;
            if let Some(registry) = self.registry {
                app.know(registry);
            }
            let listener = tokio::net::TcpListener::from_std(self.listener).map_err(no_thread)?;
            let router = router::router(app.clone());
            tokio::spawn(watch(app.clone()));
            let arrived =
                move |request, from| front::arrived(request, from, app.access(), prefix.as_deref());
            server::serve(listener, router, arrived, stop).await;
            Ok(())
        });
        // A password that is still hashed must not keep it.
        runtime.shutdown_background();
        result
    }
}

/// Looks now and then, so that a page knows since when what it shows is so. It costs what one open page costs in ten
/// seconds.
async fn watch(app: App) {
    while !app.stop().is_cancelled() {
        // A page says what is wrong.
        let _ = app.status().await;
        tokio::time::sleep(WATCH).await;
    }
}

fn no_thread(error: std::io::Error) -> Error {
    Error::new(
        ErrorKind::Internal,
        format!("can't serve the pages: {error}"),
    )
    .with_source(error)
}

fn gone() -> Error {
    Error::new(
        ErrorKind::Internal,
        "the thread that serves the pages has ended",
    )
}
