//! The mistakes that a newcomer makes first. Each gets one sentence with the fix in it, before DPDK says anything.
//! Where a mistake is one of the machine's, the program is shown such a machine: a /sys made here.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Command, Output};

use crate::appliance::PROGRAM;
use crate::net::{need_root, unique};

/// A folder with a configuration and, for the program to see, a machine's /sys.
struct Machine {
    home: PathBuf,
}

const TAPS: &str = r#"
[[port]]
name = "lan"
device = "net_tap0,iface=ctnew0"
role = "inside"
[[port]]
name = "wan"
device = "net_tap1,iface=ctnew1"
role = "outside"
"#;

fn pci(first: &str, second: &str) -> String {
    TAPS.replace("net_tap0,iface=ctnew0", first).replace("net_tap1,iface=ctnew1", second)
}

impl Machine {
    fn new(config: &str) -> Self {
        let home = std::env::temp_dir().join(unique());
        std::fs::create_dir(&home).unwrap();
        // Whoever runs the program here may see it.
        std::fs::set_permissions(&home, std::fs::Permissions::from_mode(0o755)).unwrap();
        // The usual doors are another program's, for all that is known here.
        let doors = format!("[control]\nhttp = \"off\"\nsocket = {:?}\n", home.join("control.sock"));
        std::fs::write(home.join("config.toml"), format!("{config}\n{doors}")).unwrap();
        let made = Self { home };
        made.hugepages(0);
        std::fs::create_dir_all(made.home.join("sys/bus/pci/devices")).unwrap();
        made
    }

    fn hugepages(&self, free: u32) {
        let folder = self.home.join("sys/kernel/mm/hugepages/hugepages-2048kB");
        std::fs::create_dir_all(&folder).unwrap();
        for name in ["nr_hugepages", "free_hugepages"] {
            std::fs::write(folder.join(name), format!("{free}\n")).unwrap();
        }
    }

    /// A network card in a slot, run by a driver.
    fn card(&self, address: &str, driver: &str) {
        let device = self.home.join("sys/bus/pci/devices").join(address);
        let driver = self.home.join("sys/bus/pci/drivers").join(driver);
        std::fs::create_dir_all(&device).unwrap();
        std::fs::create_dir_all(&driver).unwrap();
        for (name, value) in
            [("vendor", "0x8086"), ("device", "0x10fb"), ("class", "0x020000"), ("numa_node", "-1")]
        {
            std::fs::write(device.join(name), format!("{value}\n")).unwrap();
        }
        symlink(
            format!("../../drivers/{}", driver.file_name().unwrap().to_str().unwrap()),
            device.join("driver"),
        )
        .unwrap();
    }

    fn words(&self, words: &[&str]) -> Output {
        need_root();
        let script = r#"mount --bind "$1/sys" /sys && shift && exec "$@""#;
        Command::new("unshare")
            .args(["--mount", "sh", "-c", script, "sh"])
            .arg(&self.home)
            .arg(PROGRAM)
            .args(words)
            .output()
            .unwrap()
    }

    fn run(&self) -> Output {
        let config = self.home.join("config.toml");
        self.words(&["run", "--config", config.to_str().unwrap()])
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.home);
    }
}

/// It failed, said all of `words` on one line of stderr, and DPDK said nothing.
fn assert_told(done: &Output, words: &[&str]) {
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(!done.status.success(), "it started: {out}{err}");
    assert!(!out.contains("EAL") && !err.contains("EAL:"), "DPDK was there first: {out}{err}");
    assert!(
        err.lines().any(|line| words.iter().all(|word| line.contains(word))),
        "no line says {words:?}:\n{out}{err}"
    );
}

#[test]
fn an_unknown_key_is_named_with_the_nearest_known_one() {
    let machine = Machine::new(&format!("{TAPS}\n[tabel]\nmax_entries = 5\n"));
    assert_told(&machine.run(), &["config.toml:", "tabel", "did you mean `table`?"]);
}

#[test]
fn a_machine_without_hugepages_gets_the_command_that_reserves_them() {
    let machine = Machine::new(TAPS);
    assert_told(&machine.run(), &["hugepages", "nr_hugepages"]);
}

#[test]
fn a_card_that_is_not_there_is_named() {
    let machine = Machine::new(&pci("0000:03:00.0", "0000:03:00.1"));
    machine.hugepages(4096);
    assert_told(&machine.run(), &["0000:03:00.0", "lspci"]);
}

#[test]
fn a_card_that_the_kernel_drives_gets_the_command_that_binds_it() {
    let machine = Machine::new(&pci("0000:03:00.0", "0000:03:00.1"));
    machine.hugepages(4096);
    machine.card("0000:03:00.0", "ixgbe");
    machine.card("0000:03:00.1", "ixgbe");
    assert_told(&machine.run(), &["0000:03:00.0", "ixgbe", "dpdk-devbind", "vfio-pci"]);
}

#[test]
fn without_root_it_says_so() {
    need_root();
    let machine = Machine::new(TAPS);
    machine.hugepages(4096);
    let program = machine.home.join("dpdk-conntrack");
    std::fs::copy(PROGRAM, &program).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let done = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&program)
        .args(["run", "--config"])
        .arg(machine.home.join("config.toml"))
        .output()
        .unwrap();
    assert_told(&done, &["root"]);
}

#[test]
fn a_missing_file_is_named_and_no_default_is_made_up() {
    let done = Command::new(PROGRAM).args(["run", "--config", "/nonexistent.toml"]).output().unwrap();
    assert_told(&done, &["/nonexistent.toml", "--config"]);
}

#[test]
fn doctor_finds_them_before_run_does() {
    let machine = Machine::new(&pci("0000:03:00.0", "0000:03:00.1"));
    machine.card("0000:03:00.0", "ixgbe");
    let config = machine.home.join("config.toml");
    let done = machine.words(&["doctor", "--config", config.to_str().unwrap()]);
    let told = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(!done.status.success(), "{told}");
    for words in ["nr_hugepages", "dpdk-devbind", "0000:03:00.1"] {
        assert!(told.contains(words), "doctor does not say {words}:\n{told}");
    }
}
