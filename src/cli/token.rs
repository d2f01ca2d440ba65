//! `usher token`: mints an access token for development.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, ensure};
use aws_lc_rs::rand::SystemRandom;
use clap::Args;
use secrecy::SecretString;
use serde_json::Value;
use uuid::Uuid;

use crate::cli::process;
use crate::clock;
use crate::config::secret::{check_length, read_secret, secret_parser};
use usher_core::{
    auth::{
        mint::{NewClaims, payload},
        signing::SigningKey,
    },
    protocol::id::UserId,
};

const EXAMPLES: &str = "\
Examples:
  usher token --sub 6f1d2c3b-0a49-4b5e-8c7d-1e2f3a4b5c6d --ttl 8h
  usher token --anonymous                   for a new user, as from signInAnonymously()
  usher token --role anon --ttl 365d        like Supabase's anon key
  usher token --sub <uuid> --claim 'app_metadata={\"plan\":\"gold\"}' --claim aal='\"aal2\"'
  usher token --sub <uuid> --key signing-key.json

The secret signs with HS256. It is a project's legacy secret, or the one that `usher dev` prints. A project with signing
keys accepts only tokens of its keys: make one with `supabase gen signing-key --algorithm ES256`, and sign with --key.
Signing up creates the user's row in public.profiles; a token does not.";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TokenArgs {
    /// UUID of the user. Required for the role authenticated.
    #[arg(long, value_name = "UUID")]
    sub: Option<UserId>,

    /// Role: anon or authenticated. The gateway refuses others. Default: authenticated with --sub, else anon.
    #[arg(long, value_name = "ROLE")]
    role: Option<String>,

    /// Mint a token of an anonymous user: authenticated, with is_anonymous. Without --sub, for a new user.
    #[arg(long, conflicts_with = "role")]
    anonymous: bool,

    /// Add a claim, its value as JSON. Can be repeated. Replaces a claim of the same name.
    #[arg(long = "claim", value_name = "NAME=JSON", value_parser = parse_claim)]
    claims: Vec<(String, Value)>,

    /// Lifetime, such as 90s, 15m, 8h or 7d. A number alone means seconds.
    #[arg(long, default_value = "1h", value_name = "TIME", value_parser = parse_ttl)]
    ttl: Duration,

    /// Issuer (claim iss). Default: the first of USHER_ISSUER, or the auth server of SUPABASE_URL, as the gateway
    /// expects; otherwise none.
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,

    #[arg(long, env = "USHER_ISSUER", hide = true)]
    accepted_issuers: Option<String>,

    #[arg(long, env = "SUPABASE_URL", hide = true)]
    supabase_url: Option<String>,

    /// File with a private key (ES256, RS256, EdDSA) that signs instead of the secret: a JWK, or a list of which the first
    /// counts.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,

    /// Secret that signs the token (HS256), at least 32 bytes.
    #[arg(long, env = "SUPABASE_JWT_SECRET", hide_env_values = true, value_name = "SECRET", value_parser = secret_parser())]
    secret: Option<SecretString>,

    /// File that contains the secret.
    #[arg(long, env = "SUPABASE_JWT_SECRET_FILE", value_name = "FILE")]
    secret_file: Option<PathBuf>,
}

/// Prints the token.
///
/// # Errors
///
/// If no secret or key is given, or the role authenticated lacks a user.
pub(crate) fn run(args: &TokenArgs) -> anyhow::Result<()> {
    let key = args.signing_key()?;
    let mut payload = payload(&args.claims()?, clock::unix_seconds(), args.ttl);
    if args.anonymous {
        payload.insert("is_anonymous".to_owned(), true.into());
    }
    payload.extend(args.claims.iter().cloned());
    process::print(&key.sign(&payload, &SystemRandom::new()));
    Ok(())
}

impl TokenArgs {
    fn signing_key(&self) -> anyhow::Result<SigningKey> {
        if let Some(file) = &self.key {
            let text = fs::read_to_string(file)
                .with_context(|| format!("read the key from {}", file.display()))?;
            return SigningKey::from_jwk(&text).with_context(|| {
                let file = file.display();
                format!("{file} must hold a private JWK, such as `supabase gen signing-key` prints")
            });
        }
        let name = "SUPABASE_JWT_SECRET";
        let secret = read_secret(name, self.secret.as_ref(), self.secret_file.as_deref());
        let secret = secret.context(name)?.context(
            "nothing to sign with: give a secret (--secret, SUPABASE_JWT_SECRET), or a private key (--key FILE)",
        )?;
        check_length(&secret).context("the secret cannot sign")?;
        Ok(SigningKey::from_secret(&secret))
    }

    fn claims(&self) -> anyhow::Result<NewClaims> {
        let user = self
            .sub
            .or_else(|| self.anonymous.then(|| UserId(Uuid::new_v4())));
        let mut claims = user.map_or_else(NewClaims::anon, NewClaims::user);
        if let Some(role) = &self.role {
            ensure!(
                role != "authenticated" || user.is_some(),
                "the role authenticated needs a user: give one with --sub <uuid>"
            );
            claims.role.clone_from(role);
        }
        let project = self.supabase_url.as_deref().map(str::trim);
        let project = project.filter(|url| !url.is_empty());
        let auth_server = project.map(|url| format!("{}/auth/v1", url.trim_end_matches('/')));
        let accepted = self.accepted_issuers.as_deref().unwrap_or_default();
        let mut accepted = accepted.split(',').map(str::trim);
        let accepted = accepted.find(|issuer| !issuer.is_empty());
        let accepted = accepted.map(str::to_owned);
        claims.issuer = self.issuer.clone().or(accepted).or(auth_server);
        Ok(claims)
    }
}

fn parse_claim(text: &str) -> Result<(String, Value), String> {
    let parsed = text.split_once('=').and_then(|(name, json)| {
        let value = serde_json::from_str(json).ok()?;
        (!name.is_empty()).then(|| (name.to_owned(), value))
    });
    parsed
        .ok_or_else(|| r#"it must be NAME=JSON, a text in double quotes: plan='"gold"'"#.to_owned())
}

fn parse_ttl(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => 0,
    };
    digits
        .parse()
        .ok()
        .and_then(|number: u64| number.checked_mul(unit))
        .filter(|seconds| *seconds > 0)
        .map(Duration::from_secs)
        .ok_or_else(|| "it must be a number with s, m, h or d, as in 15m".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_a_name_and_json() {
        for (text, expected) in [
            (r#"plan="gold""#, Some(("plan", "\"gold\""))),
            (r#"a={"b":[1]}"#, Some(("a", r#"{"b":[1]}"#))),
            ("a=b=c", None),
            ("plan=gold", None),
            ("plan", None),
            ("=1", None),
        ] {
            let claim = parse_claim(text).ok();
            let claim = claim.map(|(name, value)| (name, value.to_string()));
            let expected = expected.map(|(name, json)| (name.to_owned(), json.to_owned()));
            assert_eq!(claim, expected, "{text}");
        }
    }

    #[test]
    fn a_time_is_a_number_with_a_unit() {
        for (text, seconds) in [
            ("90", 90),
            ("90s", 90),
            ("15m", 900),
            ("8h", 28_800),
            ("7d", 604_800),
        ] {
            assert_eq!(parse_ttl(text), Ok(Duration::from_secs(seconds)));
        }
        for text in [
            "",
            "0",
            "h",
            "-1h",
            "1w",
            "1.5h",
            "99999999999999999999d",
            "1 h",
            "٣h",
        ] {
            assert!(parse_ttl(text).is_err(), "{text}");
        }
    }
}
