//! Says what keeps a role or a database from taking the migrations, and what would help.
//!
//! Asks the catalog, which every role may read, and not the server's message: that may be in any language.

use tokio_postgres::{Client, Error};

/// The rights that the migrations need and the caller lacks, as statements for a superuser. Before Postgres 16 CREATEROLE
/// was enough to grant any role but a superuser.
const LACKING_RIGHTS: &str = "with
        caller as (
            select r.rolname as name, r.rolsuper, r.rolcreaterole,
                current_setting('server_version_num')::integer >= 160000 as needs_admin,
                (select g.oid from pg_catalog.pg_roles g where g.rolname = 'usher_gateway') as gateway
            from pg_catalog.pg_roles r
            where r.rolname = current_user
        ),
        ungranted as (
            select r.oid, r.rolname as name
            from pg_catalog.pg_roles r, caller c
            where r.rolname in ('anon', 'authenticated')
                and not exists (
                    select from pg_catalog.pg_auth_members m where m.roleid = r.oid and m.member = c.gateway
                )
        ),
        needs as (
            select exists (select from ungranted)
                or c.gateway is null
                or not exists (
                    select from pg_catalog.pg_db_role_setting s where s.setdatabase = 0 and s.setrole = c.gateway
                ) as roles
            from caller c
        )
        select c.name::text, s.statement
        from caller c
        cross join needs n
        cross join lateral (values
            (1, n.roles and not c.rolcreaterole, format('alter role %I createrole', c.name)),
            (
                2,
                n.roles and c.needs_admin and c.gateway is not null
                    and not pg_catalog.pg_has_role(c.gateway, 'member with admin option'),
                format('grant usher_gateway to %I with admin option', c.name)
            ),
            (
                3,
                c.needs_admin and exists (
                    select from ungranted u where not pg_catalog.pg_has_role(u.oid, 'member with admin option')
                ),
                format(
                    'grant %s to %I with admin option',
                    (
                        select string_agg(quote_ident(u.name), ', ' order by u.name)
                        from ungranted u
                        where not pg_catalog.pg_has_role(u.oid, 'member with admin option')
                    ),
                    c.name
                )
            ),
            (
                4,
                not pg_catalog.has_database_privilege(current_database(), 'create'),
                format('grant create on database %I to %I', current_database(), c.name)
            )
        ) as s (place, is_lacking, statement)
        where s.is_lacking
            and not c.rolsuper
            -- The gateway's own role must not have these rights, and the creator of the schema has them.
            and c.name <> 'usher_gateway'
            and not exists (
                select from pg_catalog.pg_namespace n
                where n.nspname = 'usher' and not pg_catalog.pg_has_role(n.nspowner, 'usage')
            )
        order by s.place";

/// What a Supabase project has and the migrations build on, by name, as far as the database lacks it.
///
/// # Errors
///
/// Where the catalog cannot be read.
pub(crate) async fn missing_platform(client: &Client) -> Result<Vec<String>, Error> {
    let sql = "select w.kind || ' ' || w.name
        from (values
            (1, 'role', 'anon'), (2, 'role', 'authenticated'), (3, 'role', 'service_role'),
            (4, 'table', 'auth.users'), (5, 'function', 'auth.uid'), (6, 'function', 'auth.jwt'),
            (7, 'table', 'storage.buckets'), (8, 'table', 'storage.objects'), (9, 'function', 'storage.foldername')
        ) as w (place, kind, name)
        where not case w.kind
            when 'role' then exists (select from pg_catalog.pg_roles r where r.rolname = w.name)
            when 'table' then exists (
                select from pg_catalog.pg_class c
                join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                where n.nspname || '.' || c.relname = w.name
            )
            else exists (
                select from pg_catalog.pg_proc p
                join pg_catalog.pg_namespace n on n.oid = p.pronamespace
                where n.nspname || '.' || p.proname = w.name
            )
        end
        order by w.place";
    let rows = client.query_typed(sql, &[]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// What a role that may not apply the migrations should be granted, or who else should apply them.
pub(crate) async fn rights(client: &Client) -> String {
    // Where even this cannot be asked, the failure itself is what its reader needs to know.
    let lacking = client
        .query_typed(LACKING_RIGHTS, &[])
        .await
        .unwrap_or_default();
    let statements: Vec<String> = lacking.iter().map(|row| row.get(1)).collect();
    if statements.is_empty() {
        return "connect as the role that owns the schema (on Supabase: postgres), or as a superuser"
            .to_owned();
    }
    format!(
        "run as a superuser, and then try again: {};",
        statements.join("; ")
    )
}
