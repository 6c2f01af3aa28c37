//! The first boot: a set-up file with mistakes, then the corrected one while there is no broker.

use super::super::stand::{BOOT_WITHIN, Connected, DEVICE, PROBLEMS, SETUP, SOON, Stand};
use super::super::steps::{BootSteps, Failed, heading};
use anyhow::{Context, Result, ensure};
use dunlin_wire::SetupReport;

/// A line with an unknown key, added behind the six lines of the valid file.
const MISTAKE: &str = "wifi_pasword = hunter2hunter2\n";
const MISTAKE_KEY: &str = "wifi_pasword";

pub(super) fn play(stand: &mut Stand, steps: &mut BootSteps) -> Result<Connected, Failed> {
    heading("A set-up file with a mistake");
    malformed(stand, steps)?;
    heading("The mended file, and no broker");
    set_up(stand, steps)
}

fn malformed(stand: &mut Stand, steps: &mut BootSteps) -> Result<(), Failed> {
    let (mistake, mut running) = steps.step("the machine boots", || {
        stand.surround()?;
        let text = stand.setup_file()? + MISTAKE;
        stand.disk.put(SETUP, &text)?;
        let mut running = stand.boot("malformed", None)?;
        let line = running.line(&stand.stop, BOOT_WITHIN, &["login:"])?;
        let said = format!("{:.0} s on this machine to: {}", running.up().as_secs_f64(), line.trim());
        // The mistake is in the last line.
        Ok((said, (format!("line {}", text.lines().count()), running)))
    })?;
    steps.see("the console says what is wrong", || {
        Ok(running.line(&stand.stop, SOON, &[&mistake, MISTAKE_KEY])?.trim().into())
    })?;
    steps.see("a file beside it says it too, and it is still there", || {
        let disk = &stand.disk;
        let text = running.until(&stand.stop, PROBLEMS, SOON, |_| {
            // While the file is being written it can't be read yet.
            let text = disk.text(PROBLEMS).ok().flatten();
            Ok(text.filter(|text| text.contains(&mistake) && text.contains(MISTAKE_KEY)))
        })?;
        let kept = disk.text(SETUP)?.with_context(|| format!("{SETUP} is gone"))?;
        ensure!(kept.ends_with(MISTAKE), "{SETUP} was changed");
        Ok(format!("{PROBLEMS} has {} lines", text.lines().count()))
    })?;
    steps.see("so does a report that the broker keeps", || {
        let is_report = |payload: &[u8]| {
            let report = SetupReport::decode(payload);
            report.is_ok_and(|report| report.mistakes == 1 && report.text.contains(MISTAKE_KEY))
        };
        running.until(&stand.stop, "a report of the set-up at the broker", SOON, |_| {
            Ok(stand.said("su", 0).into_iter().find(|said| is_report(&said.payload)))
        })?;
        let kept = stand.broker.kept(&format!("dl1/d/{DEVICE}/u/su"))?.context("it is not kept")?;
        ensure!(is_report(&kept.payload), "another one is kept");
        Ok(format!("{} bytes on {}", kept.payload.len(), kept.topic))
    })?;
    running.cut();
    Ok(())
}

fn set_up(stand: &mut Stand, steps: &mut BootSteps) -> Result<Connected, Failed> {
    let mut running = steps.step("the file is taken, and removed", || {
        stand.broker.kill();
        let text = stand.setup_file()?;
        stand.disk.put(SETUP, &text)?;
        let mut running = stand.boot("set-up", None)?;
        let disk = &stand.disk;
        running.until(&stand.stop, &format!("{SETUP} is gone"), BOOT_WITHIN, |_| {
            let names = disk.names().unwrap_or_else(|_| vec![SETUP.into()]);
            Ok((!names.iter().any(|name| name == SETUP || name == PROBLEMS)).then_some(()))
        })?;
        Ok((format!("{SETUP} and {PROBLEMS} are gone"), running))
    })?;
    steps.see("the agent runs and looks for its broker", || {
        stand.reachable(&mut running)?;
        let status = "systemctl show -p ActiveState -p StatusText dunlin-agent";
        let text = running.until(&stand.stop, "the agent looks for its broker", SOON, |_| {
            let text = stand.guest.run(status)?;
            ensure!(!text.contains("ActiveState=failed"), "the agent failed: {}", stand.guest.said()?);
            let looks = text.contains("ActiveState=active") && text.contains("looking for the broker");
            Ok(looks.then_some(text))
        })?;
        Ok(text.lines().find_map(|line| line.strip_prefix("StatusText=")).unwrap_or_default().into())
    })?;
    steps.see("nothing failed in it", || healthy(stand))?;
    steps.step("the broker comes, and the board connects", || {
        stand.broker.start(&stand.stop)?;
        let connected = stand.connected(running, 0, SOON)?;
        Ok((format!("{DEVICE} is there"), connected))
    })
}

/// Checks that no unit failed and that the data partition is mounted.
pub(super) fn healthy(stand: &Stand) -> Result<String> {
    let failed = stand.guest.run("systemctl --failed --no-legend --plain")?;
    ensure!(failed.trim().is_empty(), "failed units: {failed}");
    let name = stand.guest.run("hostname")?;
    ensure!(name.trim() == DEVICE, "the machine calls itself {name}");
    Ok(format!("no failed unit, hostname {DEVICE}"))
}
