//! Proves that `movies.vote_total` follows the votes, and that no vote waits for a lock on a movie.

use uuid::Uuid;

use crate::client::Client;
use crate::database::{Database, connect};
use crate::gateway::Gateway;

#[tokio::test]
async fn a_locked_movie_stops_no_vote() {
    let db = Database::create().await;
    let (ann, ben) = (db.user("ann").await, db.user("ben").await);
    let (session, elsewhere) = (db.session(&ann).await, db.session(&ann).await);
    let movies = db.movies(2).await;
    let voting = db.voting(session, &movies, "").await;
    let other = db.voting(elsewhere, &movies, "").await;
    let gateway = Gateway::start(&db, |_| {}).await;
    let mut client = Client::connect(gateway.at, &ann).await;
    let editor = connect(&db.url).await;
    let edit = format!(
        "begin; update public.movies set description = 'x' where id = '{}'",
        movies[0]
    );
    editor.batch_execute(&edit).await.unwrap();

    for voting in [voting, other] {
        client.vote(voting, Some(movies[0])).await;
        client.vote(voting, Some(movies[1])).await;
        client.vote(voting, Some(movies[0])).await;
        db.run(&format!(
            "insert into public.votes (voting_session_id, user_id, movie_id) values ('{voting}', '{}', '{}')",
            ben.id, movies[1]
        ))
        .await;
    }
    // The other movie's total does not wait for the locked one.
    db.until(&total(movies[1], 2)).await;
    assert!(
        db.one::<bool>(&format!("select {}", total(movies[0], 0)))
            .await
    );
    editor.batch_execute("commit").await.unwrap();
    db.until(&total(movies[0], 2)).await;
}

#[tokio::test]
async fn voters_in_opposite_orders_do_not_wait_for_each_other() {
    let db = Database::create().await;
    let (ann, ben) = (db.user("ann").await, db.user("ben").await);
    let movies = db.movies(2).await;
    let votings = [
        db.voting(db.session(&ann).await, &movies, "").await,
        db.voting(db.session(&ann).await, &movies, "").await,
    ];
    let voters = [connect(&db.url).await, connect(&db.url).await];
    let cast = |voting: Uuid, user: Uuid, movie: Uuid| {
        format!(
            "set local lock_timeout = '2s';
             insert into public.votes (voting_session_id, user_id, movie_id) values ('{voting}', '{user}', '{movie}')"
        )
    };
    for voter in &voters {
        voter.batch_execute("begin").await.unwrap();
    }
    for (voter, (user, turn)) in voters.iter().zip([(ann.id, 0), (ben.id, 1)]) {
        let sql = cast(votings[turn], user, movies[turn]);
        voter.batch_execute(&sql).await.unwrap();
    }
    for (voter, (user, turn)) in voters.iter().zip([(ann.id, 1), (ben.id, 0)]) {
        let sql = cast(votings[turn], user, movies[turn]);
        voter.batch_execute(&sql).await.unwrap();
    }
    for voter in &voters {
        voter.batch_execute("commit").await.unwrap();
    }
    while db.one::<i32>("select usher.update_vote_totals()").await > 0 {}
    for movie in movies {
        assert!(db.one::<bool>(&format!("select {}", total(movie, 2))).await);
    }
}

#[tokio::test]
async fn totals_have_the_votes_whose_counts_are_public() {
    let db = Database::create().await;
    let ann = db.user("ann").await;
    let session = db.session(&ann).await;
    let movie = db.movies(1).await[0];
    let voting = db.voting(session, &[movie], "").await;
    db.run(&format!(
        "insert into public.votes (voting_session_id, user_id, movie_id) values ('{voting}', '{}', '{movie}')",
        ann.id
    ))
    .await;
    for (change, expected) in [
        ("select", 1),
        ("update public.movie_sessions set visibility = 'private'", 0),
        ("update public.movie_sessions set visibility = 'members'", 1),
        (
            "update public.voting_sessions set results_visibility = 'after_close'",
            0,
        ),
        ("update public.voting_sessions set state = 'closed'", 1),
        ("update public.movie_sessions set visibility = 'private'", 0),
        ("update public.movie_sessions set visibility = 'public'", 1),
        ("delete from public.movie_sessions", 0),
    ] {
        db.run(change).await;
        while db.one::<i32>("select usher.update_vote_totals()").await > 0 {}
        let holds = format!("select {}", total(movie, expected));
        assert!(db.one::<bool>(&holds).await, "{expected} after {change}");
    }
    let left: i64 = db
        .one("select (select count(*) from usher.movie_votes) + (select count(*) from usher.vote_tallies)")
        .await;
    assert_eq!(left, 0);
}

/// The condition that a movie's total is so much.
fn total(movie: Uuid, votes: i64) -> String {
    format!("(select vote_total = {votes} from public.movies where id = '{movie}')")
}
