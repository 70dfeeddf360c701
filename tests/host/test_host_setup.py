"""scripts/host-setup, shown machines made of files. The emulated machine of `scripts/traffic nic` runs it on real ones."""

import os
import pathlib
import re
import subprocess
import tempfile
import unittest

SCRIPT = os.path.join(os.path.dirname(os.path.realpath(__file__)), "../../scripts/host-setup")
PAGES = "sys/kernel/mm/hugepages/hugepages-2048kB"
CARD, TWIN = "0000:03:00.0", "0000:03:00.1"


class Machine:
    """A folder with /proc, /sys and /etc: 64 of 100 hugepages free, cards of two ports in groups of their own."""

    def __init__(self, test):
        folder = tempfile.TemporaryDirectory()
        test.addCleanup(folder.cleanup)
        self.root = folder.name
        self.file(f"{PAGES}/nr_hugepages", "100")
        self.file(f"{PAGES}/free_hugepages", "64")
        self.file("proc/meminfo", "MemTotal: 8000000 kB\nHugepagesize:       2048 kB")
        self.file("proc/net/route", "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\neth0 00000000 0101A8C0 0003 0 0 0 00000000 0 0 0")
        self.file("proc/net/ipv6_route", "0" * 32 + " 00 " + "0" * 32 + " 00 " + "0" * 32 + " 00000400 1 0 00000003 eth3")
        self.file("sys/bus/pci/drivers_probe", "")
        self.file("sys/devices/system/cpu/isolated", "")
        # What `ip addr show dev X` prints of an interface: its addresses, if any.
        self.addresses = {}
        # What `doctor` says of hugepages, with `need` for the configuration's.
        self.doctor = "fail  hugepages 2 MB: 64 free of 100 (need 386): `echo 422 > x`, or run without hugepages"

    def path(self, name):
        return os.path.join(self.root, name)

    def file(self, name, text):
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        with open(self.path(name), "w") as file:
            file.write(f"{text}\n")

    def link(self, name, target):
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        os.makedirs(self.path(target), exist_ok=True)
        os.symlink(self.path(target), self.path(name))

    def card(self, address, driver="ixgbe", interface=None, group=None, kind="0x020000"):
        at = f"sys/bus/pci/devices/{address}"
        self.file(f"{at}/class", kind)
        self.file(f"{at}/driver_override", "(null)")
        if driver:
            self.file(f"sys/bus/pci/drivers/{driver}/unbind", "")
            self.link(f"{at}/driver", f"sys/bus/pci/drivers/{driver}")
        if interface:
            self.file(f"{at}/net/{interface}/flags", "0x1003")
            self.file(f"sys/class/net/{interface}/flags", "0x1003")
        if group is not None:
            self.file(f"sys/kernel/iommu_groups/{group}/devices/{address}", "")
            self.link(f"{at}/iommu_group", f"sys/kernel/iommu_groups/{group}")

    def run(self, *words):
        self.file("ip", "#!/bin/sh\ncase $4 in\n" + "".join(f"{name}) echo '    inet {held} scope global' ;;\n" for name, held in self.addresses.items()) + "esac")
        self.file("dpdk-conntrack", f"#!/bin/sh\necho '{self.doctor}'; exit 1")
        for name in ("ip", "dpdk-conntrack"):
            os.chmod(self.path(name), 0o755)
        environment = {**os.environ, "HOST_SETUP_ROOT": self.root, "HOST_SETUP_IP": self.path("ip"), "HOST_SETUP_UPDATE_GRUB": "true", "DPDK_CONNTRACK": self.path("dpdk-conntrack")}
        return subprocess.run([SCRIPT, *words], env=environment, capture_output=True, text=True, timeout=120)

    def all(self):
        """Every file and link, with what it holds."""
        found = {}
        for folder, _, names in os.walk(self.root):
            for name in names:
                path = os.path.join(folder, name)
                found[path] = os.readlink(path) if os.path.islink(path) else pathlib.Path(path).read_text()
        return found


class HostSetup(unittest.TestCase):
    def told(self, done, code, *words):
        said = done.stdout + done.stderr
        self.assertEqual(done.returncode, code, said)
        for word in words:
            self.assertIn(word, said)
        return said

    def test_without_apply_nothing_is_changed_and_apply_runs_what_was_printed(self):
        machine = Machine(self)
        machine.card(CARD, interface="eth2", group=7)
        words = ["--hugepages", "386", "--bind", "03:00.0", "--governor", "--isolate", "1-3"]
        machine.file("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "powersave")
        machine.file("etc/default/grub", "")
        machine.file("sys/bus/pci/drivers/vfio-pci/unbind", "")
        machine.run()  # makes the stand-ins
        before = machine.all()
        dry = machine.run(*words)
        self.told(dry, 0, "echo 422 >", f"echo {CARD} >{machine.root}/sys/bus/pci/drivers_probe", "Nothing was changed")
        self.assertEqual(machine.all(), before)
        # Hugepages do not come by writing a file here; the script looks whether they came, and says so.
        self.told(machine.run(*words, "--apply"), 1, "the kernel found memory for 64 only", "To undo it", "echo 100 >")
        self.assertEqual(machine.all()[machine.path(f"sys/bus/pci/devices/{CARD}/driver_override")], "(null)\n")
        machine.file(f"{PAGES}/nr_hugepages", "422")
        machine.file(f"{PAGES}/free_hugepages", "386")
        said = self.told(machine.run(*words, "--apply"), 0, "ok: 386 of 422 hugepages")
        after = machine.all()
        held = lambda name: after[machine.path(name)]  # noqa: E731
        self.assertEqual(held(f"sys/bus/pci/devices/{CARD}/driver_override"), "vfio-pci\n")
        self.assertEqual(held("sys/bus/pci/drivers/ixgbe/unbind"), f"{CARD}\n")
        self.assertEqual(held("sys/bus/pci/drivers_probe"), f"{CARD}\n")
        self.assertEqual(held("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor"), "performance\n")
        self.assertEqual(held("etc/sysctl.d/60-dpdk-conntrack.conf"), "vm.nr_hugepages = 422\n")
        self.assertEqual(held("etc/modules-load.d/dpdk-conntrack.conf"), "vfio-pci\n")
        self.assertIn("isolcpus=managed_irq,domain,1-3 nohz_full=1-3", held("etc/default/grub.d/60-dpdk-conntrack.cfg"))
        rule = held(f"etc/udev/rules.d/61-dpdk-conntrack-{CARD}.rules")
        self.assertRegex(rule, rf'KERNEL=="{CARD}".*ATTR{{driver_override}}="vfio-pci".*RUN\+="/bin/sh -c \'')
        # The undoing, run as it was printed, brings everything back that a file can show.
        undo = said.split("# To undo it:\n")[1].replace(f"echo >{machine.root}/sys/bus/pci/devices/{CARD}/driver_override", f"echo '(null)' >{machine.root}/sys/bus/pci/devices/{CARD}/driver_override")
        subprocess.run(["sh", "-e", "-c", undo], check=True)
        left = {path.removeprefix(machine.root) for path, text in machine.all().items() if before.get(path) != text and "/sys/" not in path}
        self.assertEqual(left, set())
        self.assertEqual(machine.all()[machine.path("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor")], "powersave\n")

    def test_what_is_there_already_is_left_alone(self):
        machine = Machine(self)
        machine.card(CARD, driver="vfio-pci", group=7)
        machine.card(TWIN, driver="mlx5_core", interface="eth5", group=8)
        said = self.told(machine.run("--hugepages", "64", "--bind", CARD, "--bind", TWIN, "--runtime", "--governor"), 0)
        self.assertNotIn("Nothing was changed", said)
        self.assertNotIn("echo ", said)
        self.assertIn("mlx5_core, which DPDK shares", said)

    def test_a_second_apply_changes_nothing(self):
        machine = Machine(self)
        machine.card(CARD, driver="vfio-pci", group=7)
        words = ["--hugepages", "60", "--bind", CARD, "--apply"]
        self.told(machine.run(*words), 0, "# To undo it:")
        before = machine.all()
        said = self.told(machine.run(*words), 0)
        self.assertNotIn("To undo it", said)
        self.assertEqual(machine.all(), before)

    def test_a_card_in_use_is_refused_unless_forced(self):
        machine = Machine(self)
        machine.card("0000:01:00.0", interface="eth0", group=1)
        machine.card("0000:02:00.0", interface="eth1", group=2)
        machine.card(CARD, interface="eth3", group=3)
        machine.card("0000:04:00.0", interface="eth4", group=4)
        machine.addresses["eth1"] = "192.0.2.7/24"
        machine.link("sys/class/net/eth4/master", "sys/class/net/br0")
        machine.run()
        before = machine.all()
        for address, why in [
            ("01:00.0", "eth0, which has the default route"),
            ("02:00.0", "eth1, which has the address 192.0.2.7/24"),
            ("03:00.0", "eth3, which has the default route of IPv6"),
            ("04:00.0", "eth4, which is part of br0"),
        ]:
            said = self.told(machine.run("--bind", address, "--apply"), 1, "REFUSED", why, "--force")
            self.assertNotIn("driver_override", said)
        self.assertEqual(machine.all(), before)
        self.told(machine.run("--bind", "02:00.0", "--force"), 0, "FORCED: eth1", "echo 0000:02:00.0 >")

    def test_groups_are_taken_whole_and_not_without_an_iommu(self):
        machine = Machine(self)
        machine.card(CARD, group=7)
        machine.card(TWIN, group=7)
        machine.card("0000:05:00.0")
        machine.card("0000:00:1f.0", driver="ahci", kind="0x010601", group=9)
        self.told(machine.run("--bind", CARD), 1, f"shares its IOMMU group with {TWIN}, which ixgbe drives")
        self.told(machine.run("--bind", CARD, "--bind", TWIN), 0, "modprobe vfio-pci")
        self.told(machine.run("--bind", "0000:05:00.0"), 1, "no IOMMU group", "intel_iommu=on")
        self.told(machine.run("--bind", "0000:00:1f.0"), 1, "is no network card")
        self.told(machine.run("--bind", "0000:09:00.0"), 1, "there is no PCI device 0000:09:00.0")

    def test_a_card_whose_addresses_nobody_can_tell_is_refused(self):
        machine = Machine(self)
        machine.card(CARD, interface="eth1", group=7)
        machine.link("sys/class/net/eth1/device", f"sys/bus/pci/devices/{CARD}")
        environment = {**os.environ, "HOST_SETUP_ROOT": machine.root, "HOST_SETUP_IP": machine.path("not-there")}
        refused = subprocess.run([SCRIPT, "--bind", CARD], env=environment, capture_output=True, text=True, timeout=120)
        self.told(refused, 1, "REFUSED", "iproute2")

    def test_a_configuration_says_what_is_needed(self):
        machine = Machine(self)
        machine.card(CARD, group=7)
        machine.card(TWIN, group=8)
        machine.file("etc/dpdk-conntrack/config.toml", f'[[port]]\ndevice = "{CARD}"   # this\n[[port]]\ndevice = "03:00.1,arg=1"\n#device = "0000:09:00.0"\ndevice = "net_tap0"')
        said = self.told(machine.run(), 0, "need", "echo 422 >")
        self.assertEqual(set(re.findall(r"echo (0000:\S+) >", said)), {CARD, TWIN})

    def test_an_address_may_be_written_as_the_program_takes_it(self):
        for written in ['"0000:3b:00.0"', '"0000:3B:00.0"', '"3B:00.0"', "'0000:3B:00.0'", "'3b:00.0,arg=1'", '"3B:00.0,x=\'1\'"']:
            for space in [" ", "", "\t"]:
                machine = Machine(self)
                machine.card("0000:3b:00.0", group=7)
                machine.file("etc/dpdk-conntrack/config.toml", f"[[port]]\n{space}device{space}={space}{written}\n#device = '0000:09:00.0'")
                said = self.told(machine.run(), 0, "need")
                self.assertEqual(set(re.findall(r"echo (0000:\S+) >", said)), {"0000:3b:00.0"}, written)
        machine = Machine(self)
        machine.card("0000:3b:00.0", group=7)
        self.told(machine.run("--bind", "0000:3B:00.0"), 0, "echo 0000:3b:00.0 >")

    def test_hugepages_that_the_running_appliance_has_are_not_reserved_again(self):
        machine = Machine(self)
        machine.file("etc/dpdk-conntrack/config.toml", "")
        machine.doctor = "ok    hugepages 2 MB: 64 free of 450, 386 taken by the running appliance (need 386)"
        machine.file(f"{PAGES}/nr_hugepages", "450")
        said = self.told(machine.run("--apply"), 0, "ok: 64 of 450 hugepages of 2 MB are free and 386 taken")
        self.assertNotIn("echo ", said)
        self.assertIn("vm.nr_hugepages = 450", said)
        self.assertNotIn("Nothing was changed", self.told(machine.run(), 0), "the second time there is nothing to do")
        # A file that wants more than it was started with: what lacks is added, and no more.
        machine.doctor = "fail  hugepages 2 MB: 64 free of 450, 386 taken by the running appliance (need 500): ..."
        self.told(machine.run(), 0, "echo 500 >")

    def test_wrong_words_end_with_2_and_reach_no_command(self):
        machine = Machine(self)
        for words in [["--bind", "x; reboot"], ["--bind", "../../etc"], ["--hugepages", "many"], ["--isolate", "1;2"], ["--nonsense"], ["--bind"], []]:
            self.told(machine.run(*words), 2, "host-setup: ")


if __name__ == "__main__":
    unittest.main()
