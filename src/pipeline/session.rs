//! One session: from finding the place to the last word.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use figvine_change::{Batch, Connector, Durable, Position, Source, Untold};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::ledger::Ledger;
use super::look::Looks;
use super::schemas;
use super::{Pipeline, PipelineError, Until};
use crate::backfill::{self, Desk, Initial, Runner, Shelf, marks_behind};
use crate::checkpoint::Writer;
use crate::event::{Derived, Encoder, Events, Letter, Parks};
use crate::map::private::{Private, PrivateError};
use crate::map::rules::Rules;
use crate::stream::keeper::{Keeper, Key};
use crate::stream::wire::CHAIN_BYTES;
use crate::stream::{
    Broker, ChainError, DeadLetters, JetStream, OnLoss, Publisher, SchemaRegistry, Seen, Settings, Stored, SubjectKeys,
};
use crate::stream::{ensure, resume};
use crate::telemetry::{Phase, SourceTelemetry, seconds_since};

/// Batches that wait for the chain. Its window holds thousands of events more.
const BATCHES_AHEAD: usize = 2;
/// An event smaller than this cannot carry its own headers.
const LEAST_PAYLOAD: usize = 4096;
/// How often the retained log is measured.
const RETENTION_EVERY: Duration = Duration::from_secs(15);

/// Runs a session to its end. `streamed` is set once everything was reached.
pub(super) async fn run<C: Connector + 'static>(
    pipeline: &Pipeline<C>,
    until: &mut Option<Until>,
    stop: &CancellationToken,
    streamed: &mut bool,
) -> Result<(), PipelineError> {
    pipeline.telemetry.phase(Phase::Starting);
    let begun = tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(()),
        begun = Box::pin(begin(pipeline, until)) => begun?,
    };
    *streamed = true;
    let goal = match until {
        Some(Until::Position(position)) => Some(position.clone()),
        Some(Until::Now) | None => None,
    };
    Box::pin(begun.stream(pipeline, goal, stop)).await
}

/// Everything in place, nothing read yet.
struct Begun<S> {
    source: S,
    private: Private<SubjectKeys>,
    keys: SubjectKeys,
    registry: SchemaRegistry,
    encoder: Encoder,
    publisher: Publisher<JetStream>,
    keeper: Keeper<Key>,
    /// The same once more, for what the chain finds at its end.
    witness: Keeper<Key>,
    ledger: Ledger,
    stored: watch::Sender<Stored>,
    durable: watch::Sender<Option<Position>>,
    /// For rows that go to one consumer alone.
    context: jetstream::Context,
}

/// Finds the place in the stream and in the log.
async fn begin<C: Connector>(
    pipeline: &Pipeline<C>,
    until: &mut Option<Until>,
) -> Result<Begun<C::Source>, PipelineError> {
    let Pipeline { connector, events, stream, nats, telemetry, private, .. } = pipeline;
    let client = nats.client(&format!("figvine {}", events.source)).await?;
    let context = jetstream::new(client);
    // First what an earlier run kept: a stream made anew must not hide that one is gone.
    let key = Key::open(&context, stream).await?;
    let setup = ensure(&context, stream).await?;
    let witness = Keeper::new(key.clone(), stream, setup.stream_id.clone());
    let mut keeper = Keeper::new(key, stream, setup.stream_id.clone());
    let kept = keeper.read().await?;
    let shelf = Shelf::open(&context, stream).await?;
    let registry = schemas::open(pipeline, &context).await?;
    let keys = match private.master() {
        None => SubjectKeys::none(&stream.source),
        Some(master) => SubjectKeys::open(&context, stream, master).await.map_err(PrivateError::Key)?,
    };
    let mut broker = JetStream::new(nats.clone(), context.clone(), stream.name.as_str());
    let tail = broker.tail().await?;
    let resumed = resume(&tail, kept.as_ref(), stream)?;
    let resumed_at = resumed.from.clone();

    // The witness lies beside the stream: where both are gone, only the database can tell that there was something.
    if resumed.from.is_none() && stream.on_loss == OnLoss::Stop && connector.was_read().await? {
        return Err(PipelineError::Wiped { stream: stream.name.clone() });
    }
    // Asked once: what is committed while we wait for a source or a stream is not waited for.
    if *until == Some(Until::Now) {
        *until = Some(Until::Position(connector.newest().await?));
    }
    let (durable, released) = Durable::channel();
    let is_first = resumed.from.is_none();
    let source = connector.open(resumed.from, released).await?;
    // The source is ours from here on, and so are its backfills.
    recall(&pipeline.desk, &shelf, &context, stream, (&setup.stream_id, tail.last_seq)).await?;
    let tables = connector.tables().await;
    let mut private = Private::new(Arc::clone(private), keys.clone());
    schemas::begin(pipeline, &registry, tables.as_deref().unwrap_or_default(), &mut private).await?;
    match tables {
        Ok(tables) => pipeline.desk.learn(tables),
        Err(error) if is_first && pipeline.desk.settings().initial == Initial::Backfill => return Err(error.into()),
        Err(error) => tracing::warn!(code = error.code, %error, "the captured tables cannot be listed"),
    }
    if is_first {
        if pipeline.desk.settings().initial == Initial::Backfill {
            pipeline.desk.begin_initial();
        }
        // Before the first position: a start behind it is none of the first any more.
        shelf.write(&pipeline.desk.book()).await?;
        // Before anything is read: from here on it is known that there was a beginning, and where.
        keeper.set(tail.last_seq, source.started_at()).await?;
    }
    let max_payload = setup.max_payload.saturating_sub(CHAIN_BYTES);
    if max_payload < LEAST_PAYLOAD {
        return Err(PipelineError::NoRoom { max_payload: setup.max_payload });
    }
    let writer = Writer::fresh();
    let encoder = Encoder::new(events, source.engine(), &writer, max_payload)?.parking(pipeline.parks);
    let mut encoder = match registry.schemas() {
        Some(schemas) => encoder.naming(schemas),
        None => encoder,
    };
    if let Some(from) = &resumed_at {
        encoder.resume(from, resumed.told);
    }
    tracing::info!(
        source = %events.source, stream = %stream.name, sequence = tail.last_seq, position = %source.started_at(),
        "streaming"
    );
    let stored = Stored { sequence: tail.last_seq, position: Some(source.started_at().clone()), reads: None };
    Ok(Begun {
        private,
        keys,
        registry,
        encoder,
        publisher: Publisher::new(broker, stream, writer, &tail, Arc::clone(telemetry)),
        keeper,
        witness,
        ledger: Ledger::new(Arc::clone(telemetry), tail.last_seq),
        stored: watch::Sender::new(stored),
        durable,
        context,
        source,
    })
}

/// Brings the book of the backfills to what the stream holds.
async fn recall(
    desk: &Desk,
    shelf: &Shelf,
    context: &jetstream::Context,
    stream: &Settings,
    (stream_id, last_seq): (&str, u64),
) -> Result<(), PipelineError> {
    let mut book = if desk.is_active() { desk.book() } else { shelf.read().await? };
    let is_other = book.stream_id.as_deref().is_some_and(|id| *id != *stream_id) || book.sequence > last_seq;
    if is_other && book.is_busy() {
        tracing::warn!(stream = %stream.name, "the stream lost rows of backfills: their tables are read again");
    }
    if is_other {
        book.restart();
    }
    let marks = match book.is_busy() {
        true => marks_behind(context, &stream.name, book.sequence, last_seq).await?,
        false => Vec::new(),
    };
    desk.change(|now| {
        if !desk.is_active() {
            *now = book;
        } else if is_other {
            now.restart();
        }
        now.stream_id = Some(stream_id.into());
        now.sequence = last_seq;
        marks.iter().for_each(|mark| now.advance(mark));
    });
    desk.activate();
    Ok(())
}

impl<S: Source> Begun<S> {
    /// Streams to the end, and closes: intake first, then the chain, the checkpoint, the source.
    async fn stream<C: Connector<Source = S> + 'static>(
        self,
        pipeline: &Pipeline<C>,
        goal: Option<Position>,
        stop: &CancellationToken,
    ) -> Result<(), PipelineError> {
        let Self { mut source, private, keys, registry, mut encoder, publisher, keeper, .. } = self;
        let Self { mut witness, ledger, stored, durable, context, .. } = self;
        let (sender, events) = mpsc::channel(BATCHES_AHEAD);
        let ledger = Arc::new(ledger);
        let following = (Arc::clone(&ledger), stored.subscribe());
        let kept = stored.subscribe();
        let seen = stored.subscribe();

        let mut beside = JoinSet::new();
        let (care, spared) = watch::channel(None);
        let (connector, desk) = (&pipeline.connector, &pipeline.desk);
        beside.spawn(backfill::tables(Arc::clone(connector), Arc::clone(desk)));
        beside.spawn(backfill::load(Arc::clone(connector), Arc::clone(desk), Arc::clone(&pipeline.telemetry), care));
        beside.spawn(keys.watch());
        beside.spawn(watch_retention(Arc::clone(&pipeline.connector), Arc::clone(&pipeline.telemetry)));
        let mut chain = JoinSet::new();
        chain.spawn(async move { publisher.run(events, stored).await });
        let mut behind = JoinSet::new();
        behind.spawn(keeper.run(kept, durable));
        behind.spawn(async move { following.0.follow(following.1).await });

        let letters = DeadLetters::new(context.clone(), pipeline.letters.clone());
        if pipeline.parks != Parks::default() {
            beside.spawn(count_letters(letters.clone(), Arc::clone(&pipeline.telemetry)));
        }
        let rules = Rules::new(Arc::clone(&pipeline.rules));
        let beside_rows = (private.clone(), registry.clone(), rules);
        let runner = Runner::new(Arc::clone(connector), Arc::clone(desk), beside_rows, spared, context);
        let mut reader = Reader { pipeline, registry: &registry, ledger: &ledger, letters, goal: goal.as_ref(), stop };
        let read = reader.run(&mut source, private, &mut encoder, runner, seen, sender).await;
        // From here on nothing is read. The chain ends when all is stored, the keeper when the chain ends.
        let chained = chain.join_next().await;
        while behind.join_next().await.is_some() {}
        if let Some(Ok(Err(ChainError::Displaced { sequence, .. }))) = &chained
            && let Err(error) = witness.mark_displaced(*sequence).await
        {
            tracing::error!(stream = %pipeline.stream.name, source = ?error.source, "{error}");
        }
        source.close().await;

        // Of two failures the chain's says more: the reader may only have found it gone.
        match chained {
            Some(Ok(chained)) => chained?,
            Some(Err(stage)) => return Err(PipelineError::Stage(stage)),
            None => {}
        }
        read
    }
}

/// The first stage: reads, encodes, hands on.
struct Reader<'a, C> {
    pipeline: &'a Pipeline<C>,
    registry: &'a SchemaRegistry,
    ledger: &'a Ledger,
    letters: DeadLetters,
    goal: Option<&'a Position>,
    stop: &'a CancellationToken,
}

impl<C: Connector + 'static> Reader<'_, C> {
    /// Until the goal, the end, or a failure. Dropping `sender` tells the chain that no more comes.
    async fn run(
        &mut self,
        source: &mut C::Source,
        mut private: Private<SubjectKeys>,
        encoder: &mut Encoder,
        mut runner: Runner<C>,
        mut stored: watch::Receiver<Stored>,
        sender: mpsc::Sender<Events>,
    ) -> Result<(), PipelineError> {
        let mut reached = source.started_at().clone();
        let mut size = 0;
        let mut rules = Rules::new(Arc::clone(&self.pipeline.rules)).parking(self.pipeline.parks.poison);
        let mut derived = Derived::default();
        let mut looks = Looks::new(Arc::clone(&self.pipeline.connector));
        loop {
            if self.is_there(Some(&reached)) && !runner.has_work() {
                return Ok(());
            }
            let batch = tokio::select! {
                biased;
                // The end first: whoever stops wants no more rows.
                () = self.stop.cancelled() => return Ok(()),
                // Then a chain that is gone: what is read cannot go anywhere.
                () = sender.closed() => return Ok(()),
                // The log before existing rows: these wait for it, not it for them.
                batch = source.next() => match batch? {
                    Some(batch) => Some(batch),
                    None => return Err(ended(&self.pipeline.events.source)),
                },
                Ok(()) = stored.changed() => {
                    let now = stored.borrow_and_update();
                    runner.stored(now.sequence, now.reads.as_deref());
                    None
                }
                () = runner.step(encoder) => None,
            };
            let Some(mut batch) = batch else {
                if !self.rows(&mut runner, encoder, &reached, &stored, &sender).await? {
                    return Ok(());
                }
                continue;
            };
            tokio::select! {
                biased;
                // Keys of subjects may have to be waited for.
                () = self.stop.cancelled() => return Ok(()),
                hidden = private.map(&mut batch) => hidden?,
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(()),
                // Versions are kept before any event names them.
                drifts = self.registry.admit(&batch.tables, Seen::InLog) => {
                    schemas::note(&self.pipeline.telemetry, &drifts?);
                }
            }
            self.note(&batch, source.untold());
            self.pipeline.telemetry.suppressed("echo", self.pipeline.echoes.take_out(&mut batch));
            derived.clear();
            loop {
                // As large as the last one was: batches of a busy source are alike.
                let mut events = Events { bytes: Vec::with_capacity(size), ..Events::default() };
                let applied = rules.derive(&mut batch, &mut derived);
                let encoded = encoder.encode(&batch, &derived, &mut events);
                size = events.bytes.len();
                if let Some(end) = &events.end {
                    reached.clone_from(end);
                }
                let letters = [rules.take_letters(), encoder.take_letters()].concat();
                let stop = self.stop;
                tokio::select! {
                    biased;
                    // Of those that are kept the events come when it begins again.
                    () = stop.cancelled() => return Ok(()),
                    kept = self.keep(letters) => kept?,
                }
                // On a change that has no event those before it still go.
                let outcome = encoded.map(|encoded| self.ledger.read(encoded));
                if sender.send(events).await.is_err() {
                    return Ok(());
                }
                outcome?;
                applied?;
                // Wholes of a large transaction are told in portions: one is made when there is room for it.
                if !derived.go_on() {
                    break;
                }
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return Ok(()),
                    // It may wait for a standby.
                    () = sender.closed() => return Ok(()),
                    rows = looks.answer(&mut rules, &mut private) => self.pipeline.telemetry.looked_up(rows?),
                }
            }
            runner.pass(&batch, encoder.take_touched());
            // One slice behind each batch, however many there are: a busy log does not starve a backfill.
            if !self.rows(&mut runner, encoder, &reached, &stored, &sender).await? {
                return Ok(());
            }
        }
    }

    /// Keeps what was parked, before the events that stand in its place are sent.
    async fn keep(&mut self, letters: Vec<Letter>) -> Result<(), PipelineError> {
        for letter in self.letters.keep(&letters).await? {
            tracing::warn!(code = letter.code, event_type = %letter.event_type, id = %letter.id, "parked as a dead letter");
            self.pipeline.telemetry.dead_lettered(letter.reason);
        }
        Ok(())
    }

    /// Hands existing rows on, where some may go; whether the chain is still there.
    async fn rows(
        &mut self,
        runner: &mut Runner<C>,
        encoder: &mut Encoder,
        reached: &Position,
        stored: &watch::Receiver<Stored>,
        sender: &mpsc::Sender<Events>,
    ) -> Result<bool, PipelineError> {
        // A restart would read the transaction again from before the rows, and tell them once more.
        if encoder.holds() {
            return Ok(true);
        }
        let assigned = self.ledger.assigned();
        let in_flight = assigned.saturating_sub(stored.borrow().sequence);
        let Some(slice) = runner.slice(encoder, reached, (in_flight, assigned)) else { return Ok(true) };
        self.keep(encoder.take_letters()).await?;
        self.ledger.read(slice.encoded);
        Ok(sender.send(slice.events).await.is_ok())
    }

    fn is_there(&self, reached: Option<&Position>) -> bool {
        let there = self.goal.zip(reached);
        there.is_some_and(|(goal, reached)| self.pipeline.connector.is_reached(goal, reached))
    }

    fn note(&self, batch: &Batch, untold: Untold) {
        let telemetry = &self.pipeline.telemetry;
        if let Some(written_at) = batch.written_at {
            telemetry.source_lag(seconds_since(written_at));
        }
        let Untold { cascades, statements, partitions } = untold;
        for (reason, count) in [("cascade", cascades), ("statement", statements), ("partition", partitions)] {
            if count > 0 {
                telemetry.untold(reason, count);
            }
        }
    }
}

/// The server ended the stream in order: it is going away.
fn ended(source: &str) -> PipelineError {
    PipelineError::Source(figvine_change::SourceError {
        kind: figvine_change::SourceErrorKind::Unreachable,
        code: "FV-1102",
        what: format!("the server of source {source} ended the stream"),
        hint: None,
        source: None,
    })
}

/// Counts what is parked, now and then.
async fn count_letters(letters: DeadLetters, telemetry: Arc<SourceTelemetry>) {
    let mut tick = tokio::time::interval(RETENTION_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tick.tick().await;
        match letters.count().await {
            Ok(count) => telemetry.dead_letters(count),
            Err(error) => tracing::debug!(code = error.code(), %error, "dead letters cannot be counted"),
        }
    }
}

/// Measures the log that the server keeps for us.
async fn watch_retention<C: Connector>(connector: Arc<C>, telemetry: Arc<SourceTelemetry>) {
    let mut tick = tokio::time::interval(RETENTION_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tick.tick().await;
        match connector.retention().await {
            Ok(Some(retention)) => telemetry.retained(retention.bytes, retention.safe_ratio),
            Ok(None) => {}
            Err(error) => tracing::debug!(code = error.code, %error, "the retained log cannot be measured"),
        }
    }
}
