//! The scene that most tests start from: a database, a session that ann streams, ben as a viewer, and a gateway.

use usher::config::Config;
use uuid::Uuid;

use crate::database::{Database, User};
use crate::gateway::Gateway;

/// The scene. A test takes the parts that it needs: `let Stage { gateway, session, ann, .. } = Stage::new().await;`.
pub(crate) struct Stage {
    pub(crate) db: Database,
    pub(crate) gateway: Gateway,
    /// A public session that ann streams.
    pub(crate) session: Uuid,
    /// The streamer, who moderates the session.
    pub(crate) ann: User,
    /// A viewer with an account.
    pub(crate) ben: User,
}

impl Stage {
    /// Sets the scene, with the settings of [`crate::gateway`].
    pub(crate) async fn new() -> Self {
        Self::adapted(|_| {}).await
    }

    /// Sets the scene, with some settings changed.
    pub(crate) async fn adapted(adapt: impl FnOnce(&mut Config)) -> Self {
        let db = Database::create().await;
        let (ann, ben) = (db.user("ann").await, db.user("ben").await);
        let session = db.session(&ann).await;
        let gateway = Gateway::start(&db, adapt).await;
        Self {
            db,
            gateway,
            session,
            ann,
            ben,
        }
    }
}
