//! load serve ADDRESS                               gRPC over HTTP/2, every message sent back; TCP on the next port, too
//! load rate ADDRESS SECONDS CONNECTIONS RATE       HTTP/1.1 at a fixed rate: requests, p50, p99, p99.9 in microseconds
//! load unary ADDRESS SECONDS CONNECTIONS STREAMS   gRPC calls, as many as can be: how many
//! load stream ADDRESS SECONDS CONNECTIONS STREAMS  messages there and back on gRPC streams, as many as can be: how many
//! load ping ADDRESS SECONDS CONNECTIONS            64 bytes there and back, as many as can be: how many
//!
//! At a fixed rate a request's time begins when it was due, not when it was sent: a stall counts for all that it delays.

use std::cell::Cell;
use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::channel::Channel;
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper::header::HeaderValue;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// What a call sends: one message, or message after message.
type Sent = Either<Full<Bytes>, Channel<Bytes, Infallible>>;
type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;
/// One gRPC message of 5 bytes.
const MESSAGE: Bytes = Bytes::from_static(b"\0\0\0\0\x05hello");

#[derive(Clone, Copy)]
struct Local;

impl<F: Future + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

/// A body that sends back what comes, and the status at its end.
async fn answer(
    request: Request<Incoming>,
) -> std::result::Result<Response<impl Body<Data = Bytes, Error = hyper::Error>>, Infallible> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = request.into_body().with_trailers(async { Some(Ok(trailers)) });
    let mut response = Response::new(body);
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    Ok(response)
}

async fn serve(address: SocketAddr) -> Result<()> {
    let grpc = TcpListener::bind(address).await?;
    let bytes = TcpListener::bind((address.ip(), address.port() + 1)).await?;
    loop {
        tokio::select! {
            accepted = grpc.accept() => {
                let (stream, _) = accepted?;
                stream.set_nodelay(true)?;
                let service = hyper::service::service_fn(answer);
                let server = hyper::server::conn::http2::Builder::new(Local);
                tokio::task::spawn_local(server.serve_connection(TokioIo::new(stream), service));
            }
            accepted = bytes.accept() => {
                let (mut stream, _) = accepted?;
                stream.set_nodelay(true)?;
                tokio::task::spawn_local(async move {
                    let (mut reader, mut writer) = stream.split();
                    tokio::io::copy(&mut reader, &mut writer).await
                });
            }
        }
    }
}

/// Sends one request and reads its response, whose length is that of the first.
async fn ask(stream: &mut TcpStream, buffer: &mut [u8]) -> Result<()> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n").await?;
    let mut filled = 0;
    loop {
        let count = stream.read(&mut buffer[filled..]).await?;
        filled += count;
        let text = &buffer[..filled];
        if count == 0 || !text.starts_with(&b"HTTP/1.1 200"[..12.min(filled)]) {
            return Err(format!("no response: {:?}", String::from_utf8_lossy(text)).into());
        }
        if text.ends_with(b"\r\n\r\nhello\n") {
            return Ok(());
        }
    }
}

async fn rate(address: SocketAddr, seconds: u64, connections: u32, rate: u32) -> Result<()> {
    let each = Duration::from_secs_f64(f64::from(connections) / f64::from(rate));
    // Everybody is connected before the first request is due.
    let start = Instant::now() + Duration::from_millis(500);
    let end = start + Duration::from_secs(seconds);
    let mut tasks = JoinSet::new();
    for number in 0..connections {
        tasks.spawn_local(async move {
            let mut stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let mut buffer = vec![0; 4096];
            let mut times = Vec::new();
            let mut due = start + each.mul_f64(f64::from(number) / f64::from(connections));
            while due < end {
                // Whoever is late because of the answer before is late since it was due; the timer's own lateness, of up
                // to a millisecond, is nobody's.
                let mut since = due;
                if Instant::now() < due {
                    tokio::time::sleep_until(due).await;
                    since = Instant::now();
                }
                ask(&mut stream, &mut buffer).await?;
                times.push(since.elapsed().as_micros() as u64);
                due += each;
            }
            Result::Ok(times)
        });
    }
    let mut times = Vec::new();
    while let Some(done) = tasks.join_next().await {
        times.extend(done??);
    }
    times.sort_unstable();
    let at = |share: f64| times[((times.len() as f64 * share) as usize).min(times.len() - 1)];
    println!("{} {} {} {}", times.len(), at(0.5), at(0.99), at(0.999));
    Ok(())
}

async fn connect(address: SocketAddr) -> Result<SendRequest<Sent>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = hyper::client::conn::http2::handshake(Local, TokioIo::new(stream)).await?;
    tokio::task::spawn_local(connection);
    Ok(sender)
}

fn call(body: Sent) -> Result<Request<Sent>> {
    let request = Request::post("http://bench/echo.Echo/Say").header("content-type", "application/grpc");
    Ok(request.header("te", "trailers").body(body)?)
}

/// Reads to the end, where the status has to be 0.
async fn finish(mut body: Incoming) -> Result<()> {
    while let Some(frame) = body.frame().await {
        if let Ok(trailers) = frame?.into_trailers() {
            let status = trailers.get("grpc-status").ok_or("no grpc-status")?;
            return if status == "0" { Ok(()) } else { Err(format!("{status:?}").into()) };
        }
    }
    Err("no trailers".into())
}

async fn unary(mut sender: SendRequest<Sent>, end: Instant, count: Rc<Cell<u64>>) -> Result<()> {
    while Instant::now() < end {
        finish(sender.send_request(call(Either::Left(Full::new(MESSAGE)))?).await?.into_body()).await?;
        count.set(count.get() + 1);
    }
    Ok(())
}

async fn stream(mut sender: SendRequest<Sent>, end: Instant, count: Rc<Cell<u64>>) -> Result<()> {
    let (mut body, receive) = Channel::new(1);
    body.send_data(MESSAGE).await?;
    let mut response = sender.send_request(call(Either::Right(receive))?).await?.into_body();
    loop {
        let mut left = MESSAGE.len();
        while left > 0 {
            let frame = response.frame().await.ok_or("the stream ended")??;
            left -= frame.into_data().map_or(0, |data| data.len());
        }
        count.set(count.get() + 1);
        if Instant::now() >= end {
            drop(body);
            return finish(response).await;
        }
        body.send_data(MESSAGE).await?;
    }
}

async fn ping(address: SocketAddr, end: Instant, count: Rc<Cell<u64>>) -> Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut buffer = [0; 64];
    while Instant::now() < end {
        stream.write_all(&[0; 64]).await?;
        stream.read_exact(&mut buffer).await?;
        count.set(count.get() + 1);
    }
    Ok(())
}

async fn run(arguments: &[String]) -> Result<()> {
    let number =
        |at: usize| -> Result<u32> { Ok(arguments.get(at).ok_or("an argument is missing")?.parse()?) };
    let address: SocketAddr = arguments.get(1).ok_or("an address is missing")?.parse()?;
    let what = arguments[0].as_str();
    match what {
        "serve" => return serve(address).await,
        "rate" => return rate(address, number(2)?.into(), number(3)?, number(4)?).await,
        _ => {}
    }
    let end = Instant::now() + Duration::from_secs(number(2)?.into());
    let count = Rc::new(Cell::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..number(3)? {
        if what == "ping" {
            tasks.spawn_local(ping(address, end, Rc::clone(&count)));
            continue;
        }
        let sender = connect(address).await?;
        for _ in 0..number(4)? {
            let (sender, count) = (sender.clone(), Rc::clone(&count));
            match what {
                "unary" => tasks.spawn_local(unary(sender, end, count)),
                "stream" => tasks.spawn_local(stream(sender, end, count)),
                _ => return Err(format!("{what}: what is that?").into()),
            };
        }
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    println!("{}", count.get());
    Ok(())
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default())?;
    runtime.block_on(run(&arguments))
}
