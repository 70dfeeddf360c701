//! What `doctor` looks at beyond one start: whether the machine will be as it is after the next boot, whether the workers
//! have their cores to themselves, and whether the service, which is not root, may open the cards.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;

use super::{Finding, Host, Needs, Report, cpu_list, list};
use crate::privileges::SERVICE;

/// Everything; nothing of it keeps the appliance from running now.
pub(super) fn check(host: &Host, needs: &Needs) -> Vec<Finding> {
    let mut report = Report::default();
    if needs.hugepages {
        hugepages(host, needs.pages(), &mut report);
    }
    if !needs.workers_rest {
        cores(host, needs, &mut report);
    }
    for (port, device) in &needs.devices {
        if let Some(address) = device.pci() {
            card(host, port, address, &mut report);
        }
    }
    report.findings
}

/// Whether something reserves hugepages at each boot: a sysctl, or the kernel's command line.
fn hugepages(host: &Host, need: u64, report: &mut Report) {
    let what = "hugepages at boot";
    let fix = "`dpdk-conntrack-host-setup --apply`";
    match sysctl(host) {
        Some((path, pages)) if pages >= need => {
            report.ok(what, format!("{path} reserves {pages} (need {need})"))
        }
        Some((path, pages)) => report.warn(what, format!("{path} reserves {pages} (need {need}): {fix}")),
        None if host.text("/proc/cmdline").is_some_and(|line| line.contains("hugepages=")) => {
            report.ok(what, "the kernel's command line reserves them".to_owned());
        }
        None => report.warn(what, format!("nothing reserves them at the next boot: {fix}")),
    }
}

/// The file that has the last word on the number of hugepages, and that number. Files go by their names, the first folder
/// hides equal names in the others, and the last line counts: sysctl.d(5).
fn sysctl(host: &Host) -> Option<(String, u64)> {
    let mut files = BTreeMap::new();
    for folder in ["/etc/sysctl.d", "/run/sysctl.d", "/usr/lib/sysctl.d"] {
        for name in host.names(folder).into_iter().filter(|name| name.ends_with(".conf")) {
            files.entry(name).or_insert(folder);
        }
    }
    let said = |(name, folder)| {
        let path = format!("{folder}/{name}");
        let text = host.text(&path)?;
        let pages = text.lines().rev().find_map(|line| {
            let (key, value) = line.trim().trim_start_matches('-').split_once('=')?;
            (key.trim().replace('/', ".") == "vm.nr_hugepages").then(|| value.trim().parse().ok())?
        })?;
        Some((path, pages))
    };
    files.into_iter().rev().find_map(said)
}

fn cores(host: &Host, needs: &Needs, report: &mut Report) {
    let isolated = host.text("/sys/devices/system/cpu/isolated");
    let isolated = isolated.and_then(|text| cpu_list(&text)).unwrap_or_default();
    // Where control and all other programs need a worker's core as well, there is none to spare: `cpus` speaks of that.
    let own: Vec<usize> =
        needs.worker_cpus.iter().copied().filter(|cpu| !needs.control_cpus.contains(cpu)).collect();
    let shared: Vec<usize> = own.iter().copied().filter(|cpu| !isolated.contains(cpu)).collect();
    if own.is_empty() {
        // Which cores it will be is found out at the start, or there are too few.
    } else if shared.is_empty() {
        report.ok("isolated cores", format!("nothing but workers on {}", list(&own)));
    } else {
        let shared = list(&shared);
        report.warn(
            "isolated cores",
            format!(
                "other programs may run on {shared} as well, and packets wait for them: \
                 `dpdk-conntrack-host-setup --isolate {shared} --apply`, then boot"
            ),
        );
    }
}

/// Whether the group of a card's node is the unit's, where there is one.
fn card(host: &Host, port: &str, address: &str, report: &mut Report) {
    let groups = host.text("/etc/group").unwrap_or_default();
    let named = groups.lines().find_map(|line| line.strip_prefix(SERVICE)?.strip_prefix(':'));
    let Some(gid) = named.and_then(|rest| rest.split(':').nth(1)?.parse::<u32>().ok()) else { return };
    let Some(group) = host.link_name(format!("/sys/bus/pci/devices/{address}/iommu_group")) else { return };
    let node = format!("/dev/vfio/{group}");
    let Ok(found) = host.path(&node).metadata() else { return };
    if found.gid() == gid && found.mode() & 0o060 == 0o060 {
        report.ok(port, format!("the service may open {node}"));
    } else {
        report.warn(
            port,
            format!(
                "the service, whose group is {SERVICE}, may not open {node}: \
                 `udevadm control --reload && udevadm trigger --subsystem-match=vfio`"
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::super::tests::{Machine, expect, find};
    use super::*;

    fn needs() -> Needs {
        let devices = vec![("lan".to_owned(), "0000:03:00.0".parse().unwrap())];
        Needs {
            hugepages: true,
            dpdk_mib: 100,
            table_bytes: 672 << 20,
            worker_cpus: vec![1, 2],
            devices,
            ..Needs::default()
        }
    }

    fn look(machine: &Machine) -> Vec<Finding> {
        check(&Host::at(machine.root()), &needs())
    }

    #[test]
    fn hugepages_that_no_boot_will_reserve_are_told() {
        let machine = Machine::new();
        expect(find(&look(&machine), "hugepages at boot"), Status::Warn, "dpdk-conntrack-host-setup --apply");
        let machine = machine.file("/etc/sysctl.d/60-dpdk-conntrack.conf", "vm.nr_hugepages = 386\n");
        let words = "60-dpdk-conntrack.conf reserves 386 (need 386)";
        expect(find(&look(&machine), "hugepages at boot"), Status::Ok, words);
        // Behind it by its name, wherever it lies.
        let machine = machine.file(
            "/usr/lib/sysctl.d/70-less.conf",
            "#vm.nr_hugepages=999\n-vm/nr_hugepages=385\n\nvm.swappiness=1",
        );
        let words = "70-less.conf reserves 385 (need 386): `dpdk-conntrack-host-setup --apply`";
        expect(find(&look(&machine), "hugepages at boot"), Status::Warn, words);
        let machine = machine.file("/etc/sysctl.d/70-less.conf", "");
        expect(find(&look(&machine), "hugepages at boot"), Status::Ok, "60-dpdk-conntrack.conf");
        let machine = Machine::new().file("/proc/cmdline", "quiet hugepagesz=2M hugepages=386");
        expect(find(&look(&machine), "hugepages at boot"), Status::Ok, "command line");
    }

    #[test]
    fn polling_workers_want_their_cores_to_themselves() {
        let machine = Machine::new().file("/sys/devices/system/cpu/isolated", "2-3\n");
        expect(find(&look(&machine), "isolated cores"), Status::Warn, "--isolate 1 --apply");
        let machine = machine.file("/sys/devices/system/cpu/isolated", "1-3\n");
        expect(find(&look(&machine), "isolated cores"), Status::Ok, "nothing but workers on 1,2");
        let crowded = Needs { worker_cpus: vec![0, 1], control_cpus: vec![0, 1], ..needs() };
        for silent in [Needs { workers_rest: true, ..needs() }, crowded] {
            let found = check(&Host::at(Machine::new().root()), &silent);
            assert!(!found.iter().any(|finding| finding.what == "isolated cores"), "{found:?}");
        }
    }

    #[test]
    fn a_card_that_the_service_may_not_open_is_told() {
        let machine = Machine::new().nic("0000:03:00.0", Some("vfio-pci"), Some("7")).file("/dev/vfio/7", "");
        let lan = |machine: &Machine| look(machine).into_iter().find(|finding| finding.what == "lan");
        assert_eq!(lan(&machine), None, "without the package there is no such group");
        let gid = machine.root().join("dev/vfio/7").metadata().unwrap().gid();
        let other = machine.file("/etc/group", &format!("root:x:0:\ndpdk-conntrack:x:{}:\n", gid + 1));
        expect(find(&look(&other), "lan"), Status::Warn, "udevadm trigger");
        let ours = other.file("/etc/group", &format!("dpdk-conntrack:x:{gid}:\n"));
        std::fs::set_permissions(
            ours.root().join("dev/vfio/7"),
            std::os::unix::fs::PermissionsExt::from_mode(0o660),
        )
        .unwrap();
        expect(find(&look(&ours), "lan"), Status::Ok, "may open /dev/vfio/7");
    }
}
