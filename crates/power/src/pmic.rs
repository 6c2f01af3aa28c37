//! Power measured by a Raspberry Pi 5's own power chip: `vcgencmd pmic_read_adc`.
//!
//! Each reading starts a process, which takes some milliseconds of one core, so at most ten readings per second are
//! sensible. The figure is the sum of volts times amperes over the rails for which the chip gives both. It doesn't
//! include consumers of the 5 V input without a rail of their own (USB devices, HATs, the fan).
//!
//! Invariant: whatever the command does (hang, flood, fail), a reading ends within two time limits, and no two
//! commands run at once.

use super::sensor::{PowerSensor, Reading, SensorError, SensorSource, Uncertainty};
use super::sysfs::{failed, shown};
use super::units::{Amperes, Volts, Watts};
use dunlin_hlm::time::Duration;
use dunlin_wire::PowerSource;
use rustix::io::retry_on_intr;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, sync_channel};
use std::thread;
use std::time::Duration as Bound;

/// Arguments of the command.
const REQUEST: &str = "pmic_read_adc";
/// Interval of readings.
const PERIOD: Duration = Duration::from_millis(100);
/// Time limit of the command; it takes some milliseconds.
const ANSWER_TIME_MAX: Bound = Bound::from_secs(1);
/// Time limit for a killed command to end.
const END_TIME_MAX: Bound = Bound::from_secs(1);
/// Maximum size of an answer in bytes; real ones have about a thousand.
const ANSWER_BYTES_MAX: u64 = 16 << 10;
/// The largest plausible voltage or current.
const VALUE_MAX: f64 = 1000.0;
/// Relative uncertainty. Our estimate: the manufacturer states none.
const RELATIVE: f64 = 0.05;

/// The power chip of a Raspberry Pi 5, read through a command.
#[derive(Debug)]
pub struct Pmic {
    source: SensorSource,
    command: PathBuf,
    answer_time_max: Bound,
    /// The rails that are summed.
    rails: Vec<String>,
    /// A killed call that has not yet ended.
    hung: Option<Call>,
}

impl Pmic {
    /// Reads once to learn the rails; `command` is `vcgencmd` or a path.
    ///
    /// # Errors
    /// The command doesn't exist, doesn't answer, or finds no such chip.
    pub fn find(command: &Path) -> Result<Self, SensorError> {
        let source = SensorSource {
            kind: PowerSource::Pmic,
            part: format!("{} {REQUEST}", command.display()),
            boundary: String::new(),
            uncertainty: Uncertainty { relative: RELATIVE, offset_w: 0.0 },
            period: PERIOD,
            poll: PERIOD,
        };
        let (command, answer_time_max) = (command.to_owned(), ANSWER_TIME_MAX);
        let mut pmic = Self { source, command, answer_time_max, rails: Vec::new(), hung: None };
        let table = pmic.ask()?;
        pmic.source.boundary = boundary(&table);
        pmic.rails =
            table.into_iter().filter(|(_, rail)| rail.power().is_some()).map(|(name, _)| name).collect();
        Ok(pmic)
    }

    /// Runs the command; the answer must have at least one rail with both figures.
    fn ask(&mut self) -> Result<BTreeMap<String, PmicRail>, SensorError> {
        let text = self.call().map_err(|reason| self.lost(reason))?;
        let table = table(&text).map_err(|reason| self.lost(reason))?;
        if !table.values().any(|rail| rail.power().is_some()) {
            let first = text.lines().next().unwrap_or_default();
            return Err(self.lost(format!("no rail has volts and amperes; it answers {:?}", shown(first))));
        }
        Ok(table)
    }

    fn call(&mut self) -> Result<String, String> {
        if let Some(hung) = &mut self.hung
            // Never start a second command beside one that can't be killed.
            && !hung.has_ended()
        {
            return Err("the last call still hangs".into());
        }
        self.hung = None;
        let mut call = Call::start(&self.command)?;
        match call.finish(self.answer_time_max) {
            Some(answer) => answer,
            None => {
                call.end();
                self.hung = Some(call);
                Err(format!("no answer within {} ms; it was ended", self.answer_time_max.as_millis()))
            }
        }
    }

    fn lost(&self, reason: String) -> SensorError {
        failed(Path::new(&self.source.part), reason)
    }
}

impl PowerSensor for Pmic {
    fn source(&self) -> &SensorSource {
        &self.source
    }

    fn read(&mut self) -> Result<Option<Reading>, SensorError> {
        let table = self.ask()?;
        let mut micro: i64 = 0;
        for name in &self.rails {
            let power = table.get(name).and_then(PmicRail::power);
            let power = power.ok_or_else(|| self.lost(format!("the rail {name} is gone")))?;
            micro = micro.saturating_add(power.micro());
        }
        let (power, moment) = (Watts::from_micro(micro), Duration::default());
        Ok(Some(Reading::Power { power, rail: None, clipped: false, ended: moment, lasted: moment }))
    }
}

/// Volts and amperes of one rail.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct PmicRail {
    voltage: Option<Volts>,
    current: Option<Amperes>,
}

impl PmicRail {
    fn power(&self) -> Option<Watts> {
        Some(self.voltage? * self.current?)
    }
}

/// Parses the rails of an answer. Its lines are ` VDD_CORE_A current(7)=1.29690000A`, or with other firmware
/// `VDD_CORE_A=1.2969A`. Other lines are ignored.
fn table(text: &str) -> Result<BTreeMap<String, PmicRail>, String> {
    let mut table = BTreeMap::<String, PmicRail>::new();
    for line in text.lines() {
        let Some((place, value)) = line.split_once('=') else { continue };
        let name = place.split_whitespace().next().unwrap_or_default();
        let number =
            |unit| number(value, unit).ok_or_else(|| format!("{:?} is no figure", shown(line.trim())));
        if let Some(rail) = name.strip_suffix("_V") {
            table.entry(rail.into()).or_default().voltage = Some(Volts::from_f64(number('V')?));
        } else if let Some(rail) = name.strip_suffix("_A") {
            table.entry(rail.into()).or_default().current = Some(Amperes::from_f64(number('A')?));
        }
    }
    Ok(table)
}

fn number(value: &str, unit: char) -> Option<f64> {
    let number = value.trim().strip_suffix(unit)?.parse().ok()?;
    (0.0..=VALUE_MAX).contains(&number).then_some(number)
}

/// Describes the rails that the sum includes, and names those that it can't.
fn boundary(table: &BTreeMap<String, PmicRail>) -> String {
    let names = |paired: bool| {
        let of_sort = table.iter().filter(|(_, rail)| rail.power().is_some() == paired);
        of_sort.map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
    };
    let mut boundary = format!("the power chip's rails {}", names(true));
    let unpaired = names(false);
    if !unpaired.is_empty() {
        boundary.push_str(&format!(" (without {unpaired}, of which it doesn't give both volts and amperes)"));
    }
    boundary + "; not USB devices, HATs and the fan, and not what the supply loses"
}

/// A running command, and its output once it has ended.
#[derive(Debug)]
struct Call {
    child: Child,
    said: Receiver<io::Result<PmicOutput>>,
    /// True once its output was received; the listening thread may take a little longer to end.
    heard: bool,
}

/// Standard output and error.
type PmicOutput = (Vec<u8>, Vec<u8>);

impl Call {
    /// Starts the command in a process group of its own, so that it can be killed with its children.
    fn start(command: &Path) -> Result<Self, String> {
        let mut child = Command::new(command)
            .arg(REQUEST)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|error| error.to_string())?;
        let pipes = child.stdout.take().zip(child.stderr.take()).expect("both are piped");
        let pid = Pid::from_child(&child);
        let (say, said) = sync_channel(1);
        // The listener leaves the ended process to be collected by `finish`, so that its process id isn't reused
        // before.
        let listen = move || say.send(listen(pipes.0, pipes.1, pid));
        let listener = thread::Builder::new().name("pmic".into()).spawn(listen);
        let call = Self { child, said, heard: false };
        match listener {
            Ok(_) => Ok(call),
            Err(error) => {
                call.kill();
                Err(error.to_string())
            }
        }
    }

    /// The output, or the reason why it is invalid; `None` if the command doesn't end in time.
    fn finish(&mut self, time: Bound) -> Option<Result<String, String>> {
        let said = match self.said.recv_timeout(time) {
            Err(RecvTimeoutError::Timeout) => return None,
            Err(RecvTimeoutError::Disconnected) => Err("its listener is gone".to_string()),
            Ok(said) => said.map_err(|error| error.to_string()),
        };
        self.heard = true;
        let status = self.child.wait().map_err(|error| error.to_string());
        Some(said.and_then(|said| answer(said, status?)))
    }

    /// Kills the command, and waits a little for its end.
    fn end(&mut self) {
        self.kill();
        // Ignore the output, because it comes too late.
        let _ = self.finish(END_TIME_MAX);
    }

    fn has_ended(&mut self) -> bool {
        self.heard |= !matches!(self.said.try_recv(), Err(TryRecvError::Empty));
        self.heard && self.child.wait().is_ok()
    }

    fn kill(&self) {
        // Ignore the error: the process may have ended already.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
    }
}

/// Reads the output of a process until it ends, up to the limit of an answer.
fn listen(out: impl Read, err: impl Read, pid: Pid) -> io::Result<PmicOutput> {
    let mut said = PmicOutput::default();
    let taken = out.take(ANSWER_BYTES_MAX + 1).read_to_end(&mut said.0);
    let taken = taken.and(err.take(ANSWER_BYTES_MAX).read_to_end(&mut said.1));
    retry_on_intr(|| waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT))?;
    taken.and(Ok(said))
}

fn answer((out, err): PmicOutput, status: ExitStatus) -> Result<String, String> {
    if out.len() as u64 > ANSWER_BYTES_MAX {
        return Err(format!("its answer has more than {ANSWER_BYTES_MAX} bytes"));
    }
    if !status.success() {
        let said = if err.is_empty() { out } else { err };
        return Err(format!("{status}, {}", complaint(&String::from_utf8_lossy(&said))));
    }
    String::from_utf8(out).map_err(|_| "its answer is not text".into())
}

/// The first line of an error output, with a remedy if one is known.
fn complaint(said: &str) -> String {
    let first = shown(said.lines().next().unwrap_or_default().trim());
    let advice = if first.contains("/dev/vcio") { "; the user must be in the group \"video\"" } else { "" };
    format!("saying {first:?}{advice}")
}

#[cfg(test)]
mod tests {
    use super::super::sysfs::fake::Tree;
    use super::*;
    use std::fs::OpenOptions;
    use std::os::unix::fs::symlink;

    /// An answer of a Raspberry Pi 5.
    const ANSWER: &str = "     3V7_WL_SW_A current(0)=0.09760000A
       3V3_SYS_A current(1)=0.06100000A
      VDD_CORE_A current(7)=1.29690000A
     3V7_WL_SW_V volt(8)=3.70000000V
       3V3_SYS_V volt(9)=3.31000000V
      VDD_CORE_V volt(15)=0.72000000V
          HDMI_V volt(23)=5.14000000V
         EXT5V_V volt(24)=5.13000000V
          BATT_V volt(25)=0.00512820V
";
    /// An answer of other firmware.
    const SHORT_ANSWER: &str = "VDD_CORE_V=0.7200V\nVDD_CORE_A=1.2969A\n3V3_SYS_V=3.3100V\n3V3_SYS_A=0.0610A\n\
        3V7_WL_SW_A=0.0976A\n3V7_WL_SW_V=3.7000V\nEXT5V_V=5.1300V\n";
    /// 0.0976 · 3.7 + 0.061 · 3.31 + 1.2969 · 0.72.
    const POWER: Watts = Watts::from_micro(1_496_798);

    /// A command that runs the script `vcgencmd.does` beside it. It is a link to a file that no test writes, because
    /// a program can't be run while it is open for writing, and a child process of another test may keep it open.
    fn command() -> (Tree, PathBuf) {
        let tree = Tree::new(&[]);
        let path = tree.at("vcgencmd");
        symlink(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/vcgencmd"), &path).unwrap();
        (tree, path)
    }

    fn says(tree: &Tree, answer: &str) {
        does(tree, &format!("cat <<'END'\n{answer}END\n"));
    }

    fn does(tree: &Tree, script: &str) {
        tree.write("vcgencmd.does", script.as_bytes());
    }

    fn pmic(answer: &str) -> (Tree, Pmic) {
        let (tree, path) = command();
        says(&tree, answer);
        let mut pmic = Pmic::find(&path).unwrap();
        pmic.answer_time_max = Bound::from_secs(60);
        (tree, pmic)
    }

    fn power(pmic: &mut Pmic) -> Watts {
        match pmic.read() {
            Ok(Some(Reading::Power { power, .. })) => power,
            other => panic!("no power: {other:?}"),
        }
    }

    fn reason(read: Result<Option<Reading>, SensorError>) -> String {
        let error = read.unwrap_err();
        let SensorError::Failed { place, reason } = error else { panic!("{error}") };
        assert!(place.ends_with("vcgencmd pmic_read_adc"), "{place}");
        reason
    }

    #[test]
    fn both_formats_give_the_sum_of_volts_times_amperes() {
        for answer in [ANSWER, SHORT_ANSWER] {
            assert_eq!(power(&mut pmic(answer).1), POWER);
        }
    }

    #[test]
    fn the_source_says_which_rails_are_in_it() {
        let (_tree, pmic) = pmic(ANSWER);
        let boundary = "the power chip's rails 3V3_SYS, 3V7_WL_SW, VDD_CORE (without BATT, EXT5V, HDMI, of which it \
            doesn't give both volts and amperes); not USB devices, HATs and the fan, and not what the supply loses";
        assert_eq!(pmic.source().boundary, boundary);
        assert_eq!(
            (pmic.source().kind, pmic.source().period),
            (PowerSource::Pmic, Duration::from_millis(100))
        );
        assert_eq!(pmic.source().uncertainty.relative, 0.05);
    }

    #[test]
    fn a_rail_that_disappears_is_an_error_until_it_is_back() {
        let (tree, mut pmic) = pmic(ANSWER);
        says(&tree, &ANSWER.replace("3V3_SYS_A", "3V3_SYS_B"));
        assert_eq!(reason(pmic.read()), "the rail 3V3_SYS is gone");
        says(&tree, ANSWER);
        assert_eq!(power(&mut pmic), POWER);
    }

    #[test]
    fn a_rail_that_appears_later_changes_nothing() {
        let (tree, mut pmic) = pmic(ANSWER);
        says(&tree, &format!("{ANSWER}HDMI_A current(22)=1.0A\n"));
        assert_eq!(power(&mut pmic), POWER);
    }

    #[test]
    fn garbage_is_an_error_and_the_next_answer_counts() {
        let (tree, mut pmic) = pmic(ANSWER);
        for value in ["N/A", "A", "-0.1A", "1e30A", "infA", "nanA", "1.0V", "1.0", ""] {
            says(&tree, &ANSWER.replace("1.29690000A", value));
            let expected = format!("\"VDD_CORE_A current(7)={value}\" is no figure");
            assert_eq!(reason(pmic.read()), expected);
        }
        for (nothing, first) in [("", ""), ("=\n", "="), ("EXT5V_V volt(24)=5.1V\n", "EXT5V_V volt(24)=5.1V")]
        {
            says(&tree, nothing);
            let expected = format!("no rail has volts and amperes; it answers {first:?}");
            assert_eq!(reason(pmic.read()), expected);
        }
        does(&tree, "printf '\\377\\376'");
        assert_eq!(reason(pmic.read()), "its answer is not text");
        does(&tree, "yes '3V3_SYS_V volt(9)=3.31V'");
        assert_eq!(reason(pmic.read()), "its answer has more than 16384 bytes");
        says(&tree, ANSWER);
        assert_eq!(power(&mut pmic), POWER);
    }

    #[test]
    fn a_board_without_the_chip_has_no_such_source() {
        let (tree, path) = command();
        says(&tree, "error=1 error_msg=\"Command not registered\"\n");
        let error = Pmic::find(&path).unwrap_err().to_string();
        assert!(error.contains("volts and amperes; it answers \"error=1 error_msg="), "{error}");
        let error = Pmic::find(&tree.at("absent")).unwrap_err().to_string();
        assert!(error.ends_with("absent pmic_read_adc: No such file or directory (os error 2)"), "{error}");
    }

    #[test]
    fn a_command_that_fails_is_quoted() {
        let (tree, mut pmic) = pmic(ANSWER);
        does(&tree, "echo \"Can't open device file: /dev/vcio\" >&2; echo Try mknod >&2; exit 255");
        let advice = "the user must be in the group \"video\"";
        let expected = format!("exit status: 255, saying \"Can't open device file: /dev/vcio\"; {advice}");
        assert_eq!(reason(pmic.read()), expected);
        does(&tree, "echo VCHI; exit 1");
        assert_eq!(reason(pmic.read()), "exit status: 1, saying \"VCHI\"");
    }

    #[test]
    fn a_command_that_hangs_is_ended_with_all_its_children() {
        let (tree, mut pmic) = pmic(ANSWER);
        for script in
            ["tail -f /dev/null", "exec tail -f /dev/null", "exec >/dev/null 2>&1; tail -f /dev/null"]
        {
            does(&tree, script);
            pmic.answer_time_max = Bound::from_millis(50);
            assert_eq!(reason(pmic.read()), "no answer within 50 ms; it was ended");
            pmic.answer_time_max = Bound::from_secs(60);
            says(&tree, ANSWER);
            assert_eq!(power(&mut pmic), POWER);
        }
    }

    #[test]
    fn no_second_command_runs_while_one_can_not_be_ended() {
        let (tree, mut pmic) = pmic(ANSWER);
        assert!(Command::new("mkfifo").arg(tree.at("vcgencmd.fifo")).status().unwrap().success());
        // The process leaves the process group that is killed, and keeps the pipe open.
        does(&tree, "setsid cat \"$0.fifo\" &");
        pmic.answer_time_max = Bound::from_secs(1);
        assert_eq!(reason(pmic.read()), "no answer within 1000 ms; it was ended");
        says(&tree, ANSWER);
        assert_eq!(reason(pmic.read()), "the last call still hangs");
        drop(OpenOptions::new().read(true).write(true).open(tree.at("vcgencmd.fifo")).unwrap());
        let hung = pmic.hung.as_mut().unwrap();
        assert!(hung.finish(Bound::from_secs(60)).is_some());
        pmic.answer_time_max = Bound::from_secs(60);
        assert_eq!(power(&mut pmic), POWER);
    }
}
