//! `usher token`: mints an access token for development.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use secrecy::{ExposeSecret as _, SecretString};

use crate::{
    auth::mint::{Claims, mint},
    cli::process,
    config::{SECRET_BYTES_MIN, raw::secret},
    protocol::id::UserId,
};

const EXAMPLES: &str = "\
Examples:
  usher token --sub 6f1d2c3b-0a49-4b5e-8c7d-1e2f3a4b5c6d --ttl 8h
  usher token --role anon --ttl 365d        what Supabase calls the anon key";

/// What `usher token` takes.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct TokenArgs {
    /// The user's uuid; required for the role authenticated.
    #[arg(long, value_name = "UUID")]
    sub: Option<UserId>,

    /// The role, anon or authenticated; the gateway refuses all others. Default: authenticated with --sub, else anon.
    #[arg(long, value_name = "ROLE")]
    role: Option<String>,

    /// How long it is valid, as in 90s, 15m, 8h, 7d; a bare number is seconds.
    #[arg(long, default_value = "1h", value_name = "TIME", value_parser = parse_ttl)]
    ttl: Duration,

    /// The issuer, where the gateway expects one: `https://<ref>.supabase.co/auth/v1`. Default: none.
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,

    /// The secret that signs it (HS256), 32 bytes or more.
    #[arg(long, env = "SUPABASE_JWT_SECRET", hide_env_values = true, value_name = "SECRET", value_parser = secret())]
    secret: Option<SecretString>,

    /// File that holds the secret.
    #[arg(long, env = "SUPABASE_JWT_SECRET_FILE", value_name = "FILE")]
    secret_file: Option<PathBuf>,
}

/// Prints the token.
///
/// # Errors
///
/// Where the secret is missing or too short, or a user's role has no user.
pub fn run(args: &TokenArgs) -> anyhow::Result<()> {
    let secret: SecretString = match (&args.secret, &args.secret_file) {
        (Some(secret), _) => secret.clone(),
        (None, Some(file)) => std::fs::read_to_string(file)
            .with_context(|| format!("read the secret from {}", file.display()))?
            .trim()
            .into(),
        (None, None) => bail!("no secret: give it with --secret or SUPABASE_JWT_SECRET"),
    };
    let bytes = secret.expose_secret().len();
    ensure!(
        bytes >= SECRET_BYTES_MIN,
        "the secret has {bytes} bytes: it must have {SECRET_BYTES_MIN} or more"
    );
    let mut claims = match args.sub {
        Some(user) => Claims::user(user),
        None => Claims::anon(),
    };
    if let Some(role) = &args.role {
        ensure!(
            role != "authenticated" || args.sub.is_some(),
            "the role authenticated needs a user: give one with --sub <uuid>"
        );
        claims.role.clone_from(role);
    }
    claims.issuer.clone_from(&args.issuer);
    process::print(&mint(&secret, &claims, process::unix_now(), args.ttl));
    Ok(())
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
