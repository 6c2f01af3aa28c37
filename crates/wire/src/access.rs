//! The access of each role to each topic: one table, from which the brokers' lists, the table of `docs/access.md` and
//! the tests are made.
//!
//! Invariants:
//! - Nobody has access that the table doesn't grant.
//! - [`GrantSpan::All`] granted to devices is granted to every role, since mosquitto applies its patterns to everybody.

use crate::identity::BrokerRole::{self, Device, Enrolment, Operator, Store, Verifier, Watcher};
use crate::identity::Identity;
use core::fmt::{Display, Result, Write};

/// The ids for which a grant holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantSpan {
    /// Topics with the role's own id in its place.
    Own,
    /// Topics with any id.
    All,
}

/// The access to a topic.
#[derive(Debug)]
pub struct Rule {
    /// The topic, with `<dev>`, `<ver>`, `<store>`, `<ring>` and `<token>` in the places of ids.
    pub topic: &'static str,
    /// The roles that publish there, also as a Will.
    pub writers: &'static [(BrokerRole, GrantSpan)],
    /// The roles that receive what is published there, also by a filter with wildcards.
    pub readers: &'static [(BrokerRole, GrantSpan)],
    /// True if no program uses it yet: it is granted now, so that today's lists serve later versions.
    pub reserved: bool,
}

const EVERYBODY: &[(BrokerRole, GrantSpan)] =
    &[all(Device), all(Verifier), all(Operator), all(Store), all(Watcher), all(Enrolment)];

/// All rules. An operator writes to topics with retained messages of devices to clear what a lost board left.
pub const RULES: &[Rule] = &[
    rule("dl1/d/<dev>/u/st", &[own(Device), all(Operator)], &[all(Operator), all(Watcher)]),
    rule("dl1/d/<dev>/u/op/<ver>", &[own(Device)], &[own(Verifier)]),
    rule("dl1/d/<dev>/u/f/<ver>", &[own(Device)], &[own(Verifier)]),
    rule("dl1/d/<dev>/u/en/<ver>", &[own(Device)], &[own(Verifier), all(Operator), all(Watcher)]),
    rule("dl1/d/<dev>/u/tm/<ver>", &[own(Device)], &[own(Verifier), all(Operator), all(Watcher)]),
    rule("dl1/d/<dev>/u/su", &[own(Device), all(Operator)], &[all(Verifier), all(Operator)]),
    rule("dl1/d/<dev>/n/op", &[all(Verifier)], &[own(Device)]),
    rule("dl1/d/<dev>/n/c", &[all(Verifier)], &[own(Device)]),
    rule("dl1/d/<dev>/p", &[own(Device)], &[own(Device)]),
    rule("dl1/v/<ver>/st", &[own(Verifier)], EVERYBODY),
    rule("dl1/v/<ver>/p", &[own(Verifier)], &[own(Verifier)]),
    reserved("dl1/d/<dev>/u/fl", &[own(Device), all(Operator)], &[all(Operator), all(Watcher)]),
    reserved("dl1/d/<dev>/u/bq/<store>", &[own(Device)], &[own(Store)]),
    reserved("dl1/d/<dev>/n/bk", &[all(Store)], &[own(Device)]),
    reserved("dl1/d/<dev>/n/fl", &[all(Operator)], &[own(Device)]),
    reserved("dl1/d/<dev>/n/cm", &[all(Operator)], &[own(Device)]),
    reserved("dl1/s/<store>/st", &[own(Store)], EVERYBODY),
    reserved("dl1/r/<ring>", &[all(Operator)], EVERYBODY),
    reserved("dl1/t", &[all(Operator)], EVERYBODY),
    reserved("dl1/e/<token>/u", &[all(Enrolment)], &[all(Operator)]),
    reserved("dl1/e/<token>/n", &[all(Operator)], &[all(Enrolment)]),
];

const fn own(role: BrokerRole) -> (BrokerRole, GrantSpan) {
    (role, GrantSpan::Own)
}

const fn all(role: BrokerRole) -> (BrokerRole, GrantSpan) {
    (role, GrantSpan::All)
}

const fn rule(
    topic: &'static str,
    writers: &'static [(BrokerRole, GrantSpan)],
    readers: &'static [(BrokerRole, GrantSpan)],
) -> Rule {
    Rule { topic, writers, readers, reserved: false }
}

const fn reserved(
    topic: &'static str,
    writers: &'static [(BrokerRole, GrantSpan)],
    readers: &'static [(BrokerRole, GrantSpan)],
) -> Rule {
    Rule { topic, writers, readers, reserved: true }
}

impl Rule {
    /// The span for which a role may publish, and the one for which it receives.
    fn of(&self, role: BrokerRole) -> [Option<GrantSpan>; 2] {
        [self.writers, self.readers]
            .map(|grants| grants.iter().find(|grant| grant.0 == role).map(|grant| grant.1))
    }

    /// The filter of what a role may access, with `own` as its id.
    fn filter(&self, out: &mut impl Write, place: Option<&str>, own: impl Display) -> Result {
        for (index, level) in self.topic.split('/').enumerate() {
            if index > 0 {
                out.write_char('/')?;
            }
            match level {
                level if Some(level) == place => write!(out, "{own}")?,
                level if level.starts_with('<') => out.write_char('+')?,
                level => out.write_str(level)?,
            }
        }
        Ok(())
    }
}

/// The place of a role's own id, for a grant of this span.
fn place(role: BrokerRole, span: GrantSpan) -> Option<&'static str> {
    match (span, role) {
        (GrantSpan::Own, Device) => Some("<dev>"),
        (GrantSpan::Own, Verifier) => Some("<ver>"),
        (GrantSpan::Own, Store) => Some("<store>"),
        _ => None,
    }
}

/// Writes the list of mosquitto (`acl_file`), for all devices and for these services.
///
/// # Errors
/// Those of `out`.
pub fn mosquitto<'a>(out: &mut impl Write, services: impl IntoIterator<Item = &'a Identity>) -> Result {
    out.write_str(
        "# The access list of a Dunlin broker, generated by `dunlin-fleet acl`. Nobody has access that is not granted here.\n\
         # %u is the common name of the certificate. mosquitto applies these patterns to services too, which harms nothing:\n\
         # a service has a dot in its name, and no device has.\n",
    )?;
    for rule in RULES {
        lines(out, rule, Device, "pattern", "%u")?;
    }
    for service in services {
        writeln!(out, "\nuser {service}")?;
        for rule in RULES {
            lines(out, rule, service.role, "topic", &service.id)?;
        }
    }
    Ok(())
}

fn lines(out: &mut impl Write, rule: &Rule, role: BrokerRole, keyword: &str, own: impl Display) -> Result {
    let by_pattern = rule.of(Device);
    for (index, verb) in ["write", "read"].into_iter().enumerate() {
        let Some(span) = rule.of(role)[index] else { continue };
        // A pattern without a name already grants it to everybody.
        if role != Device && by_pattern[index] == Some(GrantSpan::All) {
            continue;
        }
        write!(out, "{keyword} {verb} ")?;
        rule.filter(out, place(role, span), &own)?;
        out.write_char('\n')?;
    }
    Ok(())
}

/// Writes the list of EMQX (`acl.conf`), for all devices and for these services.
///
/// # Errors
/// Those of `out`.
pub fn emqx<'a>(out: &mut impl Write, services: impl IntoIterator<Item = &'a Identity>) -> Result {
    out.write_str(
        "%% The access list of a Dunlin broker, generated by `dunlin-fleet acl --for emqx`. It needs, at the listener,\n\
         %% peer_cert_as_username = cn and verify = verify_peer, and authorization.no_match = deny.\n",
    )?;
    tuples(out, Device, "{re, \"^[a-z0-9-]{1,32}$\"}", "${username}")?;
    for service in services {
        writeln!(out)?;
        tuples(out, service.role, format_args!("\"{service}\""), &service.id)?;
    }
    out.write_str("\n{deny, all}.\n")
}

fn tuples(out: &mut impl Write, role: BrokerRole, user: impl Display, own: impl Display) -> Result {
    for (index, action) in ["publish", "subscribe"].into_iter().enumerate() {
        for rule in RULES {
            let Some(span) = rule.of(role)[index] else { continue };
            write!(out, "{{allow, {{username, {user}}}, {action}, [\"")?;
            rule.filter(out, place(role, span), &own)?;
            out.write_str("\"]}.\n")?;
        }
    }
    Ok(())
}

/// Writes the table of `docs/access.md`.
///
/// # Errors
/// Those of `out`.
pub fn markdown(out: &mut impl Write) -> Result {
    out.write_str("| topic | used |")?;
    for role in BrokerRole::ALL {
        write!(out, " {} |", role.name())?;
    }
    out.write_str("\n|---|---|")?;
    BrokerRole::ALL.iter().try_for_each(|_| out.write_str("---|"))?;
    for rule in RULES {
        write!(out, "\n| `{}` | {} |", rule.topic, if rule.reserved { "later" } else { "now" })?;
        for role in BrokerRole::ALL {
            out.write_str(match rule.of(role) {
                [None, None] => " – |",
                [Some(GrantSpan::Own), None] => " writes own |",
                [Some(GrantSpan::All), None] => " writes all |",
                [None, Some(GrantSpan::Own)] => " reads own |",
                [None, Some(GrantSpan::All)] => " reads all |",
                [Some(GrantSpan::Own), Some(GrantSpan::Own)] => " writes own, reads own |",
                [Some(GrantSpan::Own), Some(GrantSpan::All)] => " writes own, reads all |",
                [Some(GrantSpan::All), Some(GrantSpan::Own)] => " writes all, reads own |",
                [Some(GrantSpan::All), Some(GrantSpan::All)] => " writes all, reads all |",
            })?;
        }
    }
    out.write_char('\n')
}
