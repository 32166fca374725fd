//! The console: a page in the browser over the running stack. The page shows the shop, the
//! saga of each order and the books, and makes the weather in which they must hold.
//!
//! | subject | files |
//! |---|---|
//! | the stack | `stack`, `emulator`, `people`, `shop`, `processes` |
//! | an order as the page shows it | `order_view`, `saga`, `trace`, `live_calls` |
//! | the sums that must always be right | `books` |
//! | the proxy between the functions and the emulator | `proxy`, `call` |
//! | what the proxy does to requests, and who is killed | `weather` |
//! | a minute of weather and a hundred customers | `storm`, `recovery` |
//! | what the page is told | `watch`, `server` |
//!
//! The page's files are in the folder `web`. No function knows the console.

mod books;
mod call;
mod emulator;
mod live_calls;
mod order_view;
mod people;
mod processes;
mod proxy;
mod recovery;
mod saga;
mod server;
mod shop;
mod stack;
mod stored_order;
mod storm;
mod trace;
mod watch;
mod weather;

use std::{
    env,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use tokio::{io::AsyncReadExt, net::TcpListener};

use crate::{
    emulator::Emulator,
    live_calls::LiveCalls,
    order_view::OrderReader,
    people::People,
    processes::Processes,
    proxy::Proxy,
    server::Console,
    shop::Shop,
    stack::Stack,
    storm::Storm,
    trace::Traces,
    watch::Watch,
    weather::{Weather, control::Control, redelivery},
};

const USAGE: &str = "usage: console <folder of the checkout> <folder of the stack> <folder of the API viewer's \
                     package> <port> <port of the proxy>. \
                     `make console` starts it";

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [checkout, folder, viewer, page, proxy] = arguments.as_slice() else { bail!(USAGE) };
    let (page, proxy) = (listen(page).await?, listen(proxy).await?);
    tokio::select! {
        ended = run(Path::new(checkout), Path::new(folder), Path::new(viewer), page, proxy) => ended,
        // Whoever has started the console holds its standard input open. So the console ends
        // with the task that has started it, even if that task is killed.
        () = end_of_input() => Ok(()),
    }
}

async fn listen(port: &str) -> Result<TcpListener> {
    let port: u16 = port.parse().with_context(|| format!("{port} is no port. {USAGE}"))?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpListener::bind(address).await.with_context(|| format!("port {port} cannot be used"))
}

async fn end_of_input() {
    let mut input = tokio::io::stdin();
    // An input that cannot be read counts as its end.
    while input.read(&mut [0; 64]).await.is_ok_and(|count| count > 0) {}
}

async fn run(checkout: &Path, folder: &Path, viewer: &Path, page: TcpListener, proxy: TcpListener) -> Result<()> {
    let emulator = Emulator::new(Stack::in_folder(folder)?)?;
    let people = People::of(emulator.clone(), folder)?;
    // Without the processes, functions cannot be killed; everything else works.
    let processes = Processes::of(emulator.stack.clone(), folder)
        .inspect_err(|error| eprintln!("console: functions cannot be killed: {error:#}"))
        .ok();
    let (weather, live, watch) = (Weather::default(), LiveCalls::default(), Watch::of(emulator.clone()));
    let address = proxy.local_addr().context("the proxy has no address")?;
    let proxy_url = format!("http://localhost:{}", address.port());
    let control = Control::new(weather.clone(), emulator.clone(), processes.clone(), &proxy_url);
    let shop = Shop { emulator: emulator.clone(), people };
    let storm = Storm::new(shop.clone(), control.clone(), watch.clone());
    let orders = OrderReader { emulator: emulator.clone(), traces: Traces::of(emulator.clone()), live: live.clone() };
    let console = Console {
        shop,
        orders,
        control: control.clone(),
        watch: watch.clone(),
        storm,
        web: Arc::new(checkout.join("crates/console/web")),
        viewer: Arc::new(server::viewer_in(viewer)?),
        openapi: Arc::new(checkout.join("docs/openapi.yaml")),
    };
    // An earlier console may have been killed during weather that had changed the queue.
    redelivery::restore(&emulator).await?;
    tokio::spawn(watch.run());
    tokio::spawn(recovery::run(control));
    tokio::try_join!(
        server::serve(page, console),
        proxy::serve(proxy, Proxy { emulator, weather, live, processes, address })
    )?;
    Ok(())
}
