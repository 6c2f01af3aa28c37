//! One session over a link without faults, with models whose rows are real and whose time is modelled.

use dunlin_hlm::TokenId;
use dunlin_hlm::device::{
    Channel, Commit, Counters, Device, DraftJob, DraftRow, Event, Finish, Reply, SayError,
};
use dunlin_hlm::time::{Duration, Instant};
use dunlin_hlm::verifier::{self, Answer, Job, Verifier};
use dunlin_wire::DeviceId;

/// Modelled times, all in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Costs {
    /// The drafter, per token.
    pub draft_us: u64,
    /// The target, per pass.
    pub target_us: u64,
    /// The link, one way.
    pub link_us: u64,
}

/// A drafter's last row.
pub struct Row {
    /// One per vocabulary entry.
    pub logits: Vec<f32>,
    /// Over all positions.
    pub attention: Option<Vec<f32>>,
}

/// The two models.
pub trait Models {
    /// Runs the drafter.
    fn draft(&mut self, job: &DraftJob) -> Row;
    /// Runs the target: `rows × vocabulary` logits.
    fn verify(&mut self, job: &Job) -> Vec<f32>;
}

/// A message as the link carried it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried {
    /// A request for a lease.
    Open(usize),
    /// A frame or a chunk of context, with its bytes.
    Frame(usize),
    /// An answer to a request.
    Reply(usize),
    /// A verdict.
    Verdict(usize),
}

/// What a session came to.
#[derive(Debug)]
pub struct Outcome {
    /// The reply.
    pub commits: Vec<Commit>,
    /// How it ended.
    pub finish: Finish,
    /// What the device counted.
    pub counters: Counters,
    /// Every message.
    pub carried: Vec<Carried>,
    /// Virtual time from prompt to end.
    pub took: Duration,
}

enum Due {
    Up(Channel, Vec<u8>),
    Down(Answer, Vec<u8>),
    Drafted(DraftJob),
    Verified(Job),
}

struct Quiet<'a> {
    device: &'a mut Device,
    verifier: &'a mut Verifier,
    models: &'a mut dyn Models,
    costs: Costs,
    id: DeviceId,
    now: u64,
    queue: Vec<(u64, u64, Due)>,
    serial: u64,
    commits: Vec<Commit>,
    carried: Vec<Carried>,
    finish: Option<Finish>,
}

/// Plays one turn of a device against a verifier until the reply ends.
///
/// # Errors
/// The device does not take the prompt.
pub fn play(
    device: &mut Device,
    verifier: &mut Verifier,
    models: &mut dyn Models,
    costs: Costs,
    prompt: &[TokenId],
    reply: Reply,
) -> Result<Outcome, SayError> {
    let id = "quiet".parse().expect("a valid id");
    let mut world = Quiet {
        device,
        verifier,
        models,
        costs,
        id,
        now: 0,
        queue: Vec::new(),
        serial: 0,
        commits: Vec::new(),
        carried: Vec::new(),
        finish: None,
    };
    world.device.handle_link(true, Instant(0));
    world.device.say(prompt, reply, Instant(0))?;
    world.settle();
    while world.finish.is_none() {
        world.step();
    }
    Ok(Outcome {
        commits: world.commits,
        finish: world.finish.expect("the loop ends with it"),
        counters: *world.device.counters(),
        carried: world.carried,
        took: Duration(world.now),
    })
}

impl Quiet<'_> {
    fn after(&mut self, span: u64, due: Due) {
        self.serial += 1;
        self.queue.push((self.now + span, self.serial, due));
    }

    /// The next thing that is due, or the device's timer where that comes first.
    fn step(&mut self) {
        let next = (0..self.queue.len()).min_by_key(|i| (self.queue[*i].0, self.queue[*i].1));
        let timer = self.device.poll_timeout().map(|at| at.0);
        match next {
            Some(i) if timer.is_none_or(|timer| self.queue[i].0 <= timer) => {
                let (at, _, due) = self.queue.swap_remove(i);
                self.now = at;
                self.happen(due);
            }
            _ => {
                self.now = timer.expect("a reply under way has something due");
                self.device.handle_timeout(Instant(self.now));
            }
        }
        self.settle();
    }

    fn happen(&mut self, due: Due) {
        let now = Instant(self.now);
        match due {
            Due::Up(Channel::Open, bytes) => self.verifier.handle_open(&self.id, &bytes, now),
            Due::Up(Channel::Frames(_), bytes) => self.verifier.handle_frame(&self.id, &bytes, now),
            Due::Down(Answer::Reply, bytes) => self.device.handle_reply(&bytes, now),
            Due::Down(Answer::Verdict, bytes) => self.device.handle_down(&bytes, now),
            Due::Verified(job) => {
                let rows = self.models.verify(&job);
                self.verifier.handle_rows(job.id, Ok(&rows), now);
            }
            Due::Drafted(job) => {
                let row = self.models.draft(&job);
                let took = Duration(self.costs.draft_us * job.tokens.len() as u64);
                let draft = DraftRow { logits: &row.logits, attention: row.attention.as_deref(), took };
                self.device.handle_draft(job.id, draft, now);
            }
        }
    }

    /// Takes what both machines want to have done.
    fn settle(&mut self) {
        let costs = self.costs;
        while let Some(event) = self.device.poll_event() {
            match event {
                Event::Draft(job) => self.after(costs.draft_us * job.tokens.len() as u64, Due::Drafted(job)),
                Event::Committed(commit) => self.commits.push(commit),
                Event::Finished(finish) => self.finish = Some(finish),
                _ => {}
            }
        }
        while let Some(message) = self.device.poll_transmit(Instant(self.now)) {
            let size = message.bytes.len();
            let open = message.channel == Channel::Open;
            self.carried.push(if open { Carried::Open(size) } else { Carried::Frame(size) });
            self.after(costs.link_us, Due::Up(message.channel, message.bytes.to_vec()));
        }
        while let Some(event) = self.verifier.poll_event() {
            if let verifier::Event::Verify(job) = event {
                self.after(costs.target_us, Due::Verified(job));
            }
        }
        while let Some(answer) = self.verifier.poll_transmit() {
            let size = answer.bytes.len();
            let reply = answer.channel == Answer::Reply;
            self.carried.push(if reply { Carried::Reply(size) } else { Carried::Verdict(size) });
            self.after(costs.link_us, Due::Down(answer.channel, answer.bytes.to_vec()));
        }
    }
}
