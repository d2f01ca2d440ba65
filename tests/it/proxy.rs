//! A proxy to Postgres that can lose an answer after the database has sent it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use usher::postgres::connect::Target;

/// Forwards all bytes except those that a test tells it to drop. Lives as long as the test's runtime.
pub(crate) struct Proxy {
    url: String,
    wish: watch::Sender<Option<&'static str>>,
    lost: Arc<AtomicUsize>,
}

impl Proxy {
    pub(crate) async fn start(url: &str) -> Self {
        let (head, rest) = url.rsplit_once('@').unwrap();
        let (server, name) = rest.split_once('/').unwrap();
        let server: SocketAddr = server.parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (wish, _) = watch::channel(None);
        let lost = Arc::new(AtomicUsize::new(0));
        let (wishes, losses) = (wish.clone(), Arc::clone(&lost));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, server, wishes.clone(), Arc::clone(&losses)));
            }
        });
        Self {
            url: format!("{head}@{at}/{name}"),
            wish,
            lost,
        }
    }

    pub(crate) fn target(&self) -> Target {
        Target::parse(&self.url.as_str().into(), None).unwrap()
    }

    /// The next statement with this word reaches the database, which answers; then both sides are cut off.
    pub(crate) fn lose_answer_to(&self, word: &'static str) {
        self.wish.send_replace(Some(word));
    }

    /// Answers that were lost.
    pub(crate) fn lost(&self) -> usize {
        self.lost.load(Ordering::Relaxed)
    }
}

async fn pass(
    mut client: TcpStream,
    server: SocketAddr,
    wish: watch::Sender<Option<&'static str>>,
    lost: Arc<AtomicUsize>,
) {
    let mut database = TcpStream::connect(server).await.unwrap();
    let (mut asked, mut answered) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut is_lost = false;
    loop {
        tokio::select! {
            Ok(count) = client.read(&mut asked) => {
                let wished = *wish.borrow();
                // A small statement is one segment.
                let is_meant = wished.is_some_and(|word| {
                    asked[..count].windows(word.len()).any(|part| part == word.as_bytes())
                });
                if is_meant {
                    wish.send_replace(None);
                    is_lost = true;
                }
                if count == 0 || database.write_all(&asked[..count]).await.is_err() {
                    return;
                }
            }
            Ok(count) = database.read(&mut answered) => {
                // ReadyForQuery, after the commit.
                if is_lost && answered[..count].ends_with(b"Z\0\0\0\x05I") {
                    lost.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                if is_lost {
                    continue;
                }
                if count == 0 || client.write_all(&answered[..count]).await.is_err() {
                    return;
                }
            }
            else => return,
        }
    }
}
