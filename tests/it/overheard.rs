//! Records the notifications that the database sends to the gateways.

use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, NoTls};

use crate::database::Database;

/// The notifications on the channel of events.
pub(crate) struct Overheard<'a> {
    db: &'a Database,
    channel: String,
    notices: mpsc::Receiver<String>,
}

impl<'a> Overheard<'a> {
    pub(crate) async fn start(db: &'a Database) -> Self {
        let channel = db.channel("events").await;
        let (client, mut connection) = tokio_postgres::connect(&db.url, NoTls).await.unwrap();
        let (sender, notices) = mpsc::channel(1_000);
        tokio::spawn(async move {
            while let Some(Ok(message)) =
                std::future::poll_fn(|context| connection.poll_message(context)).await
            {
                if let AsyncMessage::Notification(notice) = message {
                    let _ = sender.send(notice.payload().to_owned()).await;
                }
            }
        });
        client
            .batch_execute(&format!("listen {channel}"))
            .await
            .unwrap();
        // Listens as long as the test runs.
        tokio::spawn(async move {
            let _client = client;
            std::future::pending::<()>().await;
        });
        Self {
            db,
            channel,
            notices,
        }
    }

    /// Everything that was said since the start.
    pub(crate) async fn all(self) -> String {
        self.payloads().await.concat()
    }

    /// The same, one by one.
    pub(crate) async fn payloads(mut self) -> Vec<String> {
        self.db
            .run(&format!("notify {}, 'over'", self.channel))
            .await;
        let mut heard = Vec::new();
        while let Some(notice) = self.notices.recv().await {
            if notice == "over" {
                break;
            }
            heard.push(notice);
        }
        heard
    }
}
