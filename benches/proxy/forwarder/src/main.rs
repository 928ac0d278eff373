//! Forwards HTTP/1.1 from port 15001 to its original destination over pooled connections, and does nothing else.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;

use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Pool = Rc<RefCell<HashMap<SocketAddr, Vec<SendRequest<Incoming>>>>>;
type Error = Box<dyn std::error::Error + Send + Sync>;

async fn sender(pool: &Pool, address: SocketAddr) -> Result<SendRequest<Incoming>, Error> {
    let pooled = pool.borrow_mut().get_mut(&address).and_then(|list| {
        list.retain(|sender| !sender.is_closed());
        list.pop()
    });
    if let Some(sender) = pooled {
        return Ok(sender);
    }
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::task::spawn_local(connection);
    Ok(sender)
}

async fn serve(pool: Pool, stream: TcpStream) -> Result<(), Error> {
    stream.set_nodelay(true)?;
    let address = SocketAddr::V4(rustix::net::sockopt::ip_original_dst(&stream)?);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let pool = Rc::clone(&pool);
        async move {
            let mut sender = sender(&pool, address).await?;
            sender.ready().await?;
            let response = sender.send_request(request).await?;
            // The sender is ready again when the response has been read; until then it waits in the pool.
            pool.borrow_mut().entry(address).or_default().insert(0, sender);
            Ok::<_, Error>(response)
        }
    });
    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await?;
    Ok(())
}

fn main() -> Result<(), Error> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default())?;
    runtime.block_on(async {
        let listener = TcpListener::bind("0.0.0.0:15001").await?;
        let pool = Pool::default();
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::task::spawn_local(serve(Rc::clone(&pool), stream));
        }
    })
}
