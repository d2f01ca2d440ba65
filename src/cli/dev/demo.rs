//! The demo of `usher dev`: the seeded session, its users with their tokens, and the links.
//!
//! All of it is read from the database. This module knows only the shape of the seed.

use std::net::SocketAddr;

use anyhow::Context as _;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::clock;
use crate::limits::{ANON_KEY_TTL, USER_TOKEN_TTL};
use crate::postgres::connect::Target;
use crate::postgres::migrations;
use usher_core::{
    auth::mint::{NewClaims, UserMetadata, mint},
    protocol::id::{MovieId, SessionId, UserId, VotingId},
};

/// The demo, ready for its links.
pub(crate) struct Demo {
    pub(crate) gateway_url: String,
    pub(crate) jwt_secret: SecretString,
    superuser_url: String,
    anon_key: String,
    session: SessionId,
    voting: VotingId,
    movies: Vec<MovieId>,
    users: Vec<User>,
    overlay_token: String,
}

/// The line of `--json`, with the fields in this order.
#[derive(Serialize)]
struct Ready<'a> {
    url: String,
    socket: String,
    database_url: &'a str,
    gateway_database_url: &'a str,
    jwt_secret: &'a str,
    anon_key: &'a str,
    session: SessionId,
    voting: VotingId,
    movies: &'a [MovieId],
    users: &'a [User],
    overlay_token: &'a str,
}

#[derive(Serialize)]
struct User {
    id: UserId,
    username: String,
    role: String,
    token: String,
}

impl Demo {
    /// Applies the schema, seeds an empty database, and mints a token for each user.
    pub(crate) async fn make(
        superuser_url: &str,
        gateway_url: String,
        gateway_password: &SecretString,
        jwt_secret: SecretString,
    ) -> anyhow::Result<Self> {
        let target = Target::parse(&superuser_url.into(), None)?;
        let (mut client, link) = target.connect().await?;
        tokio::spawn(link.drive());
        migrations::shim(&mut client).await?;
        migrations::up(&mut client).await?;
        let is_empty = "select not exists (select from public.profiles)";
        if client.query_one(is_empty, &[]).await?.get(0) {
            migrations::seed(&mut client).await?;
        }
        set_password(&client, "usher_gateway", gateway_password).await?;
        let (session, voting) = open_voting(&client).await?;
        Ok(Self {
            session,
            voting,
            movies: ballot(&client, voting).await?,
            users: users(&client, session, &jwt_secret).await?,
            overlay_token: overlay_token(&client, session, &jwt_secret).await?,
            anon_key: anon_key(&jwt_secret),
            superuser_url: superuser_url.to_owned(),
            gateway_url,
            jwt_secret,
        })
    }

    /// Returns the line of `--json`.
    pub(crate) fn json(&self, address: SocketAddr) -> String {
        let host = reachable(address);
        let ready = Ready {
            url: format!("http://{host}"),
            socket: format!("ws://{host}/v1/socket"),
            database_url: &self.superuser_url,
            gateway_database_url: &self.gateway_url,
            jwt_secret: self.jwt_secret.expose_secret(),
            anon_key: &self.anon_key,
            session: self.session,
            voting: self.voting,
            movies: &self.movies,
            users: &self.users,
            overlay_token: &self.overlay_token,
        };
        serde_json::to_string(&ready).expect("text and lists of text are JSON")
    }

    /// Returns the text for a person: links for three users, to open in three windows.
    pub(crate) fn banner(&self, address: SocketAddr, is_kept: bool) -> String {
        let host = reachable(address);
        let mut text =
            String::from("\n  Usher is running. Open these in two windows and talk to yourself:\n");
        let streamer = self
            .users
            .iter()
            .filter(|user| user.role == "streamer")
            .take(1);
        let viewers = self
            .users
            .iter()
            .filter(|user| user.role == "viewer")
            .take(2);
        for user in viewers.chain(streamer) {
            let User {
                username,
                role,
                token,
                ..
            } = user;
            let session = self.session;
            text.push_str(&format!(
                "\n  {username} ({role})\n  http://{host}/?session={session}#token={token}\n"
            ));
        }
        text.push_str(&self.other_pages(host));
        let end = if is_kept {
            "The data is kept."
        } else {
            "Everything is removed then."
        };
        text.push_str(&format!(
            "\n  Or write to the database and watch it appear:\n  psql '{}'\n\n  Ctrl-C ends it. {end}\n",
            self.superuser_url
        ));
        text
    }
}

impl Demo {
    /// Returns the links to the studio, the overlay and the status page.
    fn other_pages(&self, host: SocketAddr) -> String {
        let (session, overlay) = (self.session, &self.overlay_token);
        let streamer = self.users.iter().find(|user| user.role == "streamer");
        let studio = streamer.map_or(String::new(), |User { token, .. }| {
            format!(
                "\n  studio: polls, moderation, charts\n  http://{host}/studio?session={session}#token={token}\n"
            )
        });
        format!(
            "{studio}\n  overlay: a browser source for OBS\n  http://{host}/overlay?session={session}#token={overlay}\n\n  \
             status: what the gateway counts\n  http://{host}/status\n"
        )
    }
}

/// Returns an address that a browser on this machine can use.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => [127, 0, 0, 1].into(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => [127, 0, 0, 1].into(),
        SocketAddr::V4(_) | SocketAddr::V6(_) => address.ip(),
    };
    SocketAddr::new(ip, address.port())
}

/// Sets a password. It cannot be a parameter of the statement, so the server quotes it.
async fn set_password(client: &Client, role: &str, password: &SecretString) -> anyhow::Result<()> {
    let quote = "select format('alter role %I password %L', $1::text, $2::text)";
    let quoted = client
        .query_one(quote, &[&role, &password.expose_secret()])
        .await?;
    client
        .batch_execute(quoted.get(0))
        .await
        .with_context(|| format!("give {role} a password"))
}

async fn open_voting(client: &Client) -> anyhow::Result<(SessionId, VotingId)> {
    let query = "select s.id, v.id
        from public.movie_sessions s
        join public.voting_sessions v on v.session_id = s.id
        where s.status = 'live' and s.visibility = 'public' and v.state = 'open'
        order by s.created_at, s.id
        limit 1";
    let row = client.query_opt(query, &[]).await?;
    let row = row.context(
        "the database has no live public session with an open voting: \
         remove the --data directory to start afresh",
    )?;
    Ok((SessionId(row.get(0)), VotingId(row.get(1))))
}

async fn ballot(client: &Client, voting: VotingId) -> anyhow::Result<Vec<MovieId>> {
    let query =
        "select movie_id from public.voting_options where voting_session_id = $1 order by position";
    let rows = client.query(query, &[&voting.0]).await?;
    Ok(rows.iter().map(|row| MovieId(row.get(0))).collect())
}

/// Returns the demo's users, the session's own streamer first.
async fn users(
    client: &Client,
    session: SessionId,
    secret: &SecretString,
) -> anyhow::Result<Vec<User>> {
    let query = "select p.id, p.username::text, p.role::text, p.display_name
        from public.profiles p
        join public.movie_sessions s on s.id = $1
        order by p.id = s.streamer_id desc,
            array_position(array['streamer', 'moderator', 'viewer', 'admin'], p.role::text), p.created_at, p.username";
    let rows = client.query(query, &[&session.0]).await?;
    let now = clock::unix_seconds();
    Ok(rows
        .iter()
        .map(|row| {
            let id = UserId(row.get::<_, Uuid>(0));
            let username: String = row.get(1);
            let claims = NewClaims {
                user_metadata: Some(UserMetadata {
                    username: username.clone(),
                    display_name: row.get(3),
                }),
                ..NewClaims::user(id)
            };
            User {
                id,
                username,
                role: row.get(2),
                token: mint(secret, &claims, now, USER_TOKEN_TTL),
            }
        })
        .collect())
}

/// Mints a token for a browser source, and records it in the database like the Edge Function.
async fn overlay_token(
    client: &Client,
    session: SessionId,
    secret: &SecretString,
) -> anyhow::Result<String> {
    // With kept data, use the token of an earlier run: the tokens of a session are limited.
    let kept = "select id from public.overlay_tokens
        where session_id = $1 and label = 'usher dev' and revoked_at is null and expires_at > now() + interval '2 days'
        limit 1";
    let issue = "select t.id
        from public.movie_sessions s,
            public.issue_overlay_token(s.id, s.streamer_id, 'usher dev', 90) t
        where s.id = $1";
    let row = match client.query_opt(kept, &[&session.0]).await? {
        Some(row) => row,
        None => client
            .query_one(issue, &[&session.0])
            .await
            .context("issue an overlay token")?,
    };
    let id = UserId(row.get::<_, Uuid>(0));
    let claims = NewClaims::overlay(id, session);
    Ok(mint(secret, &claims, clock::unix_seconds(), USER_TOKEN_TTL))
}

fn anon_key(secret: &SecretString) -> String {
    let claims = NewClaims {
        issuer: Some("supabase".to_owned()),
        ..NewClaims::anon()
    };
    mint(secret, &claims, clock::unix_seconds(), ANON_KEY_TTL)
}
