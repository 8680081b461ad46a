"""The first day without a network: `python -m scripts.offline` (Linux, as root).

Runs the browser test of the first day in a network namespace that has the loopback and one interface that leads
nowhere but takes every packet meant for elsewhere, and says how many came: there must be none. The browser is
told to look no name up, since only what the journal sends is of interest.
"""

import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).parents[1]
FIRST_DAY = "tests/browser/test_first_day.py"
IN_NAMESPACE = "JOURNAL_TEST_OFFLINE"
SENT_PACKETS_FILE = Path("/sys/class/net/elsewhere/statistics/tx_packets")
SET_UP = """set -e
ip link set lo up
ip link add elsewhere type veth peer name nowhere
for end in elsewhere nowhere; do echo 1 > /proc/sys/net/ipv6/conf/$end/disable_ipv6; ip link set $end arp off; done
ip link set nowhere up
ip addr add 192.0.2.1/24 dev elsewhere
ip link set elsewhere up
ip route add default dev elsewhere
mount -t sysfs none /sys
"""


def _record_packets(packets: list[str]) -> None:
    """Note where each packet wanted to go: protocol, address, port."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800)) as packet_socket:
        packet_socket.bind(("nowhere", 0x0800))
        while True:
            packet = packet_socket.recv(2048)
            start = (packet[0] & 15) * 4
            port = int.from_bytes(packet[start + 2 : start + 4], "big")
            packets.append(f"protocol {packet[9]} to {socket.inet_ntoa(packet[16:20])} port {port}")


def may_go_offline() -> bool:
    """Return True if this process may make a network namespace of its own."""
    unshare = shutil.which("unshare")
    return unshare is not None and not subprocess.call(
        [unshare, "--net", "--mount", "true"], stderr=subprocess.DEVNULL
    )


def main() -> int:
    """Enter the namespace, run the test, count packets; 0 when it passed and none was sent."""
    if IN_NAMESPACE not in os.environ:
        command = [
            "unshare",
            "--net",
            "--mount",
            sys.executable,
            "-m",
            "scripts.offline",
            *sys.argv[1:],
        ]
        return subprocess.call(command, cwd=ROOT, env={**os.environ, IN_NAMESPACE: "1"})
    subprocess.run(["sh", "-c", SET_UP], check=True)
    packets: list[str] = []
    threading.Thread(target=_record_packets, args=(packets,), daemon=True).start()
    sent_before = int(SENT_PACKETS_FILE.read_text())
    # The counter can count: one packet to a neighbour that does not exist.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.sendto(b"?", ("192.0.2.9", 9))
    sent_after_probe = int(SENT_PACKETS_FILE.read_text())
    failed = subprocess.call(
        # Firefox asks for names of its own accord, which would be counted as ours.
        [sys.executable, "-m", "pytest", "-q", FIRST_DAY, "-k", "not firefox", *sys.argv[1:]],
        cwd=ROOT,
    )
    sent_by_test = int(SENT_PACKETS_FILE.read_text()) - sent_after_probe
    for packet in packets[1:]:
        print(packet)
    print(
        f"first day offline: {'failed' if failed else 'passed'}; packets sent elsewhere: {sent_by_test}",
        end=" ",
    )
    print(
        f"(a packet sent on purpose before was counted: {'yes' if sent_after_probe > sent_before else 'no'})"
    )
    return 1 if failed or sent_by_test else 0


if __name__ == "__main__":
    sys.exit(main())
