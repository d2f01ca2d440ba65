//! Leads a run through its phases: preflight, ramp, warm-up, measurement and drain. A search measures one rate after
//! the other instead.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::LoadError;
use crate::clock::Clock;
use crate::database;
use crate::limits::{
    CONNECTIONS, DRAIN_POLL, DUES_LEN, RAMP_GRACE, RAMP_POLL, SERVED_MIN, STEP_DRAIN, STEP_WARM_UP,
};
use crate::outcome::{Outcome, SearchStep};
use crate::pacer::{self, Due, Paced};
use crate::plan::{Plan, Route, RunContext, SearchPlan};
use crate::preflight::{self, Found};
use crate::progress::Progress;
use crate::recorder::{MeasuredPart, Recorder};
use crate::schedule::{LimitSearch, Pace};
use crate::verdict::limit;
use crate::worker::{self, Worker, WorkerCommand};
use crate::worker_state::Order;
use crate::writer::{LoadWriter, WriterKind};

/// Carries out a plan.
pub(crate) async fn run(
    plan: Plan,
    progress: &mut Progress,
    stop: CancellationToken,
) -> Result<Outcome, LoadError> {
    let found = preflight::look(&plan).await?;
    for warning in &found.warnings {
        progress.say(&format!("warning: {warning}"));
    }
    let mut runner = Runner::start(plan, found, progress, stop).await?;
    runner.ramp().await?;
    match runner.shared.plan.search {
        Some(search) => runner.search(search).await?,
        None => runner.measure().await?,
    }
    runner.end().await
}

struct Runner<'a> {
    shared: Arc<RunContext>,
    workers: Vec<Worker>,
    messages: Vec<mpsc::Sender<Due>>,
    votes: Vec<mpsc::Sender<Due>>,
    recorder: Recorder,
    progress: &'a mut Progress,
    stop: CancellationToken,
    next_number: u64,
}

impl<'a> Runner<'a> {
    async fn start(
        plan: Plan,
        found: Found,
        progress: &'a mut Progress,
        stop: CancellationToken,
    ) -> Result<Self, LoadError> {
        if plan.voters > 0 && found.ballots.is_empty() {
            return Err(LoadError::Gateway(
                "there is no open poll in these sessions: open a poll, or leave out --voters"
                    .to_owned(),
            ));
        }
        let authors = match &plan.route {
            Route::Database(connect) => database::authors(connect, &plan.sessions).await?,
            Route::Gateway => Vec::new(),
        };
        let run = format!("{:08x}", Uuid::new_v4().as_fields().0);
        let shared = Arc::new(RunContext::new(plan, run, Clock::start(), found.ballots));
        let workers: Result<Vec<Worker>, _> = (0..shared.plan.threads)
            .map(|number| worker::start(number, Arc::clone(&shared)))
            .collect();
        let mut runner = Self {
            recorder: Recorder::open(&shared, found.server),
            workers: workers?,
            messages: Vec::new(),
            votes: Vec::new(),
            shared,
            progress,
            stop,
            next_number: 0,
        };
        runner.open_writers(authors).await?;
        Ok(runner)
    }

    async fn open_writers(&mut self, authors: Vec<Uuid>) -> Result<(), LoadError> {
        let plan = &self.shared.plan;
        let mut commands = Vec::new();
        if let Route::Database(connect) = &plan.route {
            for _ in 0..CONNECTIONS {
                let (sender, dues) = mpsc::channel(DUES_LEN);
                self.messages.push(sender);
                let (connect, authors) = (connect.clone(), authors.clone());
                commands.push(WorkerCommand::Insert {
                    connect,
                    authors,
                    dues,
                });
            }
        }
        let chatters = (0..plan.chatters).map(|number| (number, WriterKind::Message));
        let voters = (0..plan.voters).map(|number| (plan.chatters + number, WriterKind::Vote));
        for (number, kind) in chatters.chain(voters) {
            let (sender, dues) = mpsc::channel(DUES_LEN);
            match kind {
                WriterKind::Message => self.messages.push(sender),
                WriterKind::Vote => self.votes.push(sender),
            }
            commands.push(WorkerCommand::Open(LoadWriter { number, kind, dues }));
        }
        for (place, command) in commands.into_iter().enumerate() {
            // Starting with the last thread, because the first threads may have one viewer more.
            let worker = self.workers.len() - 1 - place % self.workers.len();
            self.tell(worker, command).await?;
        }
        Ok(())
    }

    // The phases ----------------------------------------------------------------------------------------

    /// Lets viewers connect at a steady rate, whether or not earlier ones have joined.
    async fn ramp(&mut self) -> Result<(), LoadError> {
        self.recorder.phase = "joining";
        let (clock, viewers) = (self.shared.clock, self.shared.plan.viewers);
        let pace = Pace {
            start_us: clock.now_us(),
            per_second: self.shared.plan.ramp,
            count: viewers.into(),
            first: 0,
        };
        let deadline = clock.at(pace.due_us(pace.count)) + RAMP_GRACE;
        let mut come = 0;
        while self.recorder.watching < u64::from(viewers) {
            if self.stop.is_cancelled() {
                return Err(LoadError::Stopped);
            }
            let now_us = clock.now_us();
            while come < viewers && pace.due_us(come.into()) <= now_us {
                let due_us = pace.due_us(come.into());
                let worker = come as usize % self.workers.len();
                self.tell(
                    worker,
                    WorkerCommand::Join {
                        viewer: come,
                        due_us,
                    },
                )
                .await?;
                come += 1;
            }
            if clock.at(now_us) > deadline {
                let reasons = self.recorder.whole.failures.clone();
                let came = self.recorder.watching;
                return Err(LoadError::Ramp {
                    came,
                    wanted: viewers,
                    reasons,
                });
            }
            let next = clock.at(now_us) + RAMP_POLL;
            sleep_until(next.into()).await;
            self.tick_if_due().await?;
            if come == viewers {
                self.recorder.watching = self.watching().await?;
            }
        }
        self.recorder.on_everybody_there();
        Ok(())
    }

    async fn measure(&mut self) -> Result<(), LoadError> {
        let plan = &self.shared.plan;
        let (warm_up, measured, storm) = (plan.warm_up, plan.measured, plan.storm);
        let (rate, vote_rate) = (plan.rate, plan.vote_rate);
        let slow = plan.viewers - plan.slow_readers..plan.viewers;
        let start_us = self.shared.clock.now_us() + 10_000;
        let pacers = self.pace(start_us, rate, vote_rate, warm_up + measured)?;
        let from_us = start_us + us(warm_up);
        self.recorder.open_part();
        self.shared.window.open(from_us, from_us + us(measured));

        self.recorder.phase = "warming";
        self.pass_until(from_us).await?;
        self.recorder.phase = "measuring";
        self.recorder.begin_part();
        if !slow.is_empty() {
            self.order(slow.clone(), Order::Stall).await?;
        }
        if let Some(storm) = storm {
            self.pass_until(from_us + us(storm.at)).await?;
            if !self.stop.is_cancelled() {
                self.recorder.on_storm();
                self.order(0..storm.viewers, Order::Drop).await?;
            }
        }
        self.pass_until(from_us + us(measured)).await?;
        self.recorder.end_part();
        if self.stop.is_cancelled() {
            self.progress
                .say("stopped early: the measurements so far count");
        }
        self.finish(pacers).await;
        self.recorder.phase = "draining";
        if !slow.is_empty() {
            self.order(slow, Order::Watch).await?;
        }
        self.drain(self.shared.plan.drain).await?;
        let part = self.recorder.take_part();
        self.recorder.keep(part);
        Ok(())
    }

    async fn search(&mut self, plan: SearchPlan) -> Result<(), LoadError> {
        let mut search = LimitSearch::from(self.shared.plan.rate);
        let bound_ms = plan.bound.as_secs_f64() * 1e3;
        let mut steps = Vec::new();
        let mut limited_by = String::new();
        while let Some(rate) = search.next()
            && !self.stop.is_cancelled()
        {
            let (step, step_limit, part) = self.step(rate, plan.step, bound_ms).await?;
            self.progress.say(&describe(&step));
            if !step.is_good {
                limited_by = step_limit;
            }
            search.on_step(step.is_good);
            if step.is_good && search.knee() == Some(rate) {
                self.recorder.keep(part);
            }
            steps.push(step);
        }
        self.recorder
            .on_search(bound_ms, steps, search.knee(), limited_by);
        Ok(())
    }

    /// Measures one rate, and waits until its events have arrived.
    async fn step(
        &mut self,
        rate: f64,
        measured: Duration,
        bound_ms: f64,
    ) -> Result<(SearchStep, String, MeasuredPart), LoadError> {
        self.recorder.phase = "searching";
        let start_us = self.shared.clock.now_us() + 10_000;
        let pacers = self.pace(start_us, rate, 0.0, STEP_WARM_UP + measured)?;
        let from_us = start_us + us(STEP_WARM_UP);
        self.recorder.open_part();
        self.shared.window.open(from_us, from_us + us(measured));
        self.pass_until(from_us).await?;
        self.recorder.begin_part();
        self.pass_until(from_us + us(measured)).await?;
        self.recorder.end_part();
        self.finish(pacers).await;
        let is_digested = self.drain(STEP_DRAIN).await?;
        let part = self.recorder.take_part();

        let latency = part.interval.latency.spread();
        let cores = self.recorder.gateway_cores_max;
        let limited_by = limit(&part.resources, cores);
        let plan = &self.shared.plan;
        let offered = rate * f64::from(plan.viewers) / plan.sessions.len() as f64;
        let delivered = part.deliveries_per_second();
        let count = latency.map_or(0, |latency| latency.count);
        let arrived = count as f64 / (offered * measured.as_secs_f64());
        let p99_ms = latency.map_or(f64::INFINITY, |latency| latency.p99_ms);
        let busy = part.resources.generator_busy;
        let reason = if !is_digested {
            Some(format!(
                "events or answers were missing {} s after its end",
                STEP_DRAIN.as_secs()
            ))
        } else if p99_ms > bound_ms {
            Some(format!("p99 was {p99_ms:.0} ms"))
        } else if arrived < SERVED_MIN {
            Some(format!(
                "only {:.0} % of the due deliveries arrived",
                arrived * 100.0
            ))
        } else {
            None
        };
        let limited_by = match &reason {
            Some(reason) => format!("{limited_by}; {reason}"),
            None => limited_by,
        };
        let step = SearchStep {
            rate,
            offered,
            delivered,
            p50_ms: latency.map_or(f64::INFINITY, |latency| latency.p50_ms),
            p99_ms,
            is_good: reason.is_none(),
            reason,
            generator_busy: busy,
            gateway_cores: part.resources.gateway_cores,
        };
        Ok((step, limited_by, part))
    }

    /// Reads the final numbers of the logs, ends the threads, and returns the outcome.
    async fn end(mut self) -> Result<Outcome, LoadError> {
        self.collect().await?;
        let absent = u64::from(self.shared.plan.viewers).saturating_sub(self.recorder.watching);
        if let Route::Database(connect) = &self.shared.plan.route {
            match database::heads(connect, &self.shared.plan.sessions).await {
                Ok(heads) => {
                    for (session, head) in heads.into_iter().enumerate() {
                        self.shared.note_head(session, head);
                    }
                }
                Err(error) => self.progress.say(&format!(
                    "warning: the last written number is unknown: {error}"
                )),
            }
        }
        for place in 0..self.workers.len() {
            let collected = self.ask(place, WorkerCommand::End).await?;
            self.recorder.take(place, collected);
        }
        for worker in self.workers {
            drop(worker.commands);
            worker.thread.join().map_err(|_| LoadError::Worker)?;
        }
        self.progress.finish();
        Ok(self.recorder.close(&self.shared, absent))
    }

    // Steps of the phases -------------------------------------------------------------------------------

    fn pace(
        &mut self,
        start_us: u64,
        rate: f64,
        vote_rate: f64,
        lasting: Duration,
    ) -> Result<Pacers, LoadError> {
        let seconds = lasting.as_secs_f64();
        let mut pacers = Pacers::default();
        for (rate, outlets, thread) in [
            (rate, &self.messages, &mut pacers.messages),
            (vote_rate, &self.votes, &mut pacers.votes),
        ] {
            let pace = Pace::lasting(start_us, rate, seconds, self.next_number);
            self.next_number += pace.count;
            if pace.count > 0 && !outlets.is_empty() {
                let pacing =
                    pacer::start(pace, outlets.clone(), self.shared.clock, self.stop.clone());
                *thread = Some(pacing?);
            }
        }
        Ok(pacers)
    }

    /// Waits for the pacers and passes their counts to the recorder.
    async fn finish(&mut self, pacers: Pacers) {
        let joining = tokio::task::spawn_blocking(|| {
            let join =
                |thread: Option<JoinHandle<Paced>>| thread.and_then(|thread| thread.join().ok());
            (
                join(pacers.messages).unwrap_or_default(),
                join(pacers.votes).unwrap_or_default(),
            )
        });
        if let Ok((messages, votes)) = joining.await {
            self.recorder.on_paced(&messages, &votes);
        }
    }

    async fn pass_until(&mut self, until_us: u64) -> Result<(), LoadError> {
        let clock = self.shared.clock;
        while clock.now_us() < until_us && !self.stop.is_cancelled() {
            let next = clock.at(until_us.min(self.recorder.next_tick_us()));
            let stop = self.stop.clone();
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = sleep_until(next.into()) => {}
            }
            self.tick_if_due().await?;
        }
        self.collect().await
    }

    /// Waits until every viewer has every event and every write its answer. Returns whether that
    /// happened within `limit`.
    async fn drain(&mut self, limit: Duration) -> Result<bool, LoadError> {
        let deadline = self.shared.clock.at(self.shared.clock.now_us()) + limit;
        loop {
            let mut behind = 0;
            for place in 0..self.workers.len() {
                behind += self.ask(place, WorkerCommand::Behind).await?;
            }
            self.collect().await?;
            if behind == 0 && self.recorder.is_answered() {
                return Ok(true);
            }
            let now = self.shared.clock.at(self.shared.clock.now_us());
            if now > deadline {
                return Ok(false);
            }
            sleep_until(Instant::from_std(now + DRAIN_POLL)).await;
            self.tick_if_due().await?;
        }
    }

    async fn tick_if_due(&mut self) -> Result<(), LoadError> {
        if self.shared.clock.now_us() >= self.recorder.next_tick_us() {
            self.collect().await?;
            let tick = self.recorder.tick();
            self.progress.tick(tick);
        }
        Ok(())
    }

    async fn collect(&mut self) -> Result<(), LoadError> {
        let mut watching = 0;
        for place in 0..self.workers.len() {
            let collected = self.ask(place, WorkerCommand::Collect).await?;
            watching += collected.interval.watching;
            self.recorder.take(place, collected);
        }
        self.recorder.watching = watching;
        Ok(())
    }

    async fn watching(&mut self) -> Result<u64, LoadError> {
        self.collect().await?;
        Ok(self.recorder.watching)
    }

    async fn order(&self, viewers: std::ops::Range<u32>, order: Order) -> Result<(), LoadError> {
        for place in 0..self.workers.len() {
            let viewers = viewers.clone();
            self.tell(place, WorkerCommand::Order { viewers, order })
                .await?;
        }
        Ok(())
    }

    async fn ask<T>(
        &self,
        place: usize,
        command: impl FnOnce(oneshot::Sender<T>) -> WorkerCommand,
    ) -> Result<T, LoadError> {
        let (reply, answer) = oneshot::channel();
        self.tell(place, command(reply)).await?;
        answer.await.map_err(|_| LoadError::Worker)
    }

    async fn tell(&self, place: usize, command: WorkerCommand) -> Result<(), LoadError> {
        let sent = self.workers[place].commands.send(command).await;
        sent.map_err(|_| LoadError::Worker)
    }
}

/// The threads that hand out due messages and votes.
#[derive(Default)]
struct Pacers {
    messages: Option<JoinHandle<Paced>>,
    votes: Option<JoinHandle<Paced>>,
}

fn us(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn describe(step: &SearchStep) -> String {
    format!(
        "  {:>9.1} messages/s  {:>11.0} deliveries/s  p50 {:>7.1} ms  p99 {:>7.1} ms  {}",
        step.rate,
        step.delivered,
        step.p50_ms,
        step.p99_ms,
        step.reason.as_deref().unwrap_or("within the bound")
    )
}
