#!/usr/bin/python
# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: what a host is and has, and what keeps it from being a DN42 node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_facts
short_description: Read what a DN42 node needs to know of its host
version_added: 0.1.0
description:
  - Reads kernel, Docker, firewalld, addresses, ports and disk of a host in one exchange and changes nothing.
  - With O(wanted) it also lists everything that keeps the host from becoming that node, each with the reason and the way out.
author:
  - the dn42.compose contributors (@dn42-compose)
options:
  known:
    description:
      - What an earlier task returned as RV(host). It is judged by O(wanted) on the controller, and the host is not asked again.
    type: dict
  also:
    description: >-
      Modules that run on the host in the same exchange, in check mode: their options by name, as the option C(modules) of
      M(dn42.compose.together) takes them.
    type: dict
  wanted:
    description:
      - What the node is going to need. Nothing is judged when the option is not given.
    type: dict
    suboptions:
      name:
        description:
          - The node's name, for the report.
        type: str
        default: ""
      userspace:
        description:
          - Whether C(wireguard-go) may be used where the kernel has no WireGuard.
        type: bool
        default: false
      blocks:
        description:
          - The node's own prefixes.
        type: list
        elements: str
        default: []
      pools:
        description:
          - The operator's prefixes, from which all nodes have theirs.
        type: list
        elements: str
        default: []
      interfaces:
        description:
          - Names of the tunnels' interfaces.
        type: list
        elements: str
        default: []
      udp_ports:
        description:
          - UDP ports the tunnels listen on.
        type: list
        elements: int
        default: []
      docker_source:
        description:
          - Where Docker comes from when it is missing.
        type: str
        choices: [distro, upstream, none]
        default: distro
      controller_time:
        description:
          - The controller's clock in seconds since 1970, to compare the host's with.
        type: float
      bridge:
        description:
          - Name of the DN42 network's bridge on the host.
        type: str
        default: br-dn42
  stack_directory:
    description:
      - Where the node's files are. Ports in the running release's list of tunnels are the node's own and no conflict.
    type: path
    default: /opt/dn42
attributes:
  check_mode:
    support: full
    description: Reads and changes nothing.
  diff_mode:
    support: none
    description: There is nothing to show.
notes:
  - Must run as root to see the processes behind the ports.
"""

EXAMPLES = r"""
- name: Read the host
  dn42.compose.host_facts:
  register: facts

- name: See whether the host can be a node with one tunnel
  dn42.compose.host_facts:
    wanted:
      blocks: ["172.23.255.0/29", "fd99:4242:1::/64"]
      interfaces: [wg-peer1]
      udp_ports: [22900]
  register: facts
"""

RETURN = r"""
also:
  description: The results of the modules that were asked for with O(also), by name. What failed is among RV(problems) where there are any.
  returned: when asked for
  type: dict
host:
  description: What was found.
  returned: success
  type: dict
  contains:
    recorded:
      description: Whether M(dn42.compose.host_record) has written down how the host was before it became a node.
      type: bool
    architecture:
      description: The machine's architecture as the kernel names it.
      type: str
    python:
      description: Version of the Python that runs modules.
      type: str
    distribution:
      description: C(id), C(like), C(version), C(major), C(codename) and C(name) from os-release; no version for a rolling one.
      type: dict
    systemd:
      description: Whether systemd is the init system.
      type: bool
    kernel:
      description:
        - C(release), C(wireguard) (present, loadable or absent), C(tun) (the device is there), C(ipv6), C(ipv6_forwarding).
      type: dict
    docker:
      description:
        - C(installed), C(missing) (which of engine, cli and compose), C(running), C(enabled), C(version), C(compose_version),
          C(root), C(podman) (the command is podman's), C(networks) with name, driver, project, subnets, bridge and
          whether it is C(ours).
      type: dict
    firewalld:
      description:
        - C(installed), C(running), C(version), C(default_zone), C(ipv6_rpfilter) (what firewalld makes of its file),
          C(ipv6_rpfilter_in_force) (whether the running one checks), C(check) (what it checks now), C(backend),
          C(strict_forward_ports), C(bridge_zone) (now), C(bridge_zones) (permanent), C(drops_bridged_ipv6) (whether it drops what
          a router on a bridge hands its siblings) and C(cure) (what dn42_firewall_strategy=auto does about it, in a sentence).
      type: dict
    ufw:
      description:
        - Whether ufw is C(active), the C(udp_ports) it lets in from anywhere, whether it C(forwards) by default, and the C(bridges)
          whose own frames it lets pass.
      type: dict
    base_chains:
      description:
        - The nftables base chains for input and forwarding of others than firewalld and Docker's own tables, with C(family),
          C(table), C(name), C(hook) and C(policy).
      type: list
      elements: dict
    clock:
      description: The host's C(time) in seconds since 1970, and whether it is C(synchronised), null if that is not told.
      type: dict
    bridge_nf_call_ip6tables:
      description: Whether bridged IPv6 goes through the host's rules, null while C(br_netfilter) is not loaded.
      type: int
    nft:
      description: Path of the nft command, null if there is none.
      type: str
    package_lists:
      description: Whether apt's package lists are there.
      type: bool
    interfaces:
      description: Names of the interfaces.
      type: list
      elements: str
    addresses:
      description: Addresses with C(interface), C(address) and C(prefix).
      type: list
      elements: dict
    default_routes:
      description: Default routes with C(family), C(gateway), C(interface), C(protocol) and C(accept_ra) of the interface.
      type: list
      elements: dict
    routes:
      description:
        - Other routes in private space (RFC 1918's 10.0.0.0/8 and 172.16.0.0/12, fc00::/7) with C(family), C(prefix), C(interface)
          (null for one that leads nowhere), C(gateway) and C(protocol); without those the kernel made for addresses.
      type: list
      elements: dict
    ra_interfaces:
      description:
        - C(name) and C(accept_ra) of the interfaces that have their IPv6 default route from the kernel's router discovery, now or
          when C(/etc/sysctl.d/90-dn42-accept-ra.conf) was written.
      type: list
      elements: dict
    stack:
      description:
        - What there is of the node itself. C(public_key) is empty unless it is noted beside a key that only its owner can read. C(network) (null
          for none) and the tags of C(images) are told by a running Docker alone. C(routes) is whether the router's container runs.
      type: dict
    host_access:
      description: Whether an earlier run let the host itself use DN42.
      type: bool
    udp:
      description: UDP sockets with C(port), C(address), C(process) and C(pid); null for the kernel's own.
      type: list
      elements: dict
    own_udp_ports:
      description: Ports of the tunnels in the running release of this node.
      type: list
      elements: int
    resolv_conf:
      description: C(path) of the file behind C(/etc/resolv.conf) and the C(nameservers) in it.
      type: dict
    disk_free:
      description: Free bytes by path, for the node's directory and Docker's.
      type: dict
problems:
  description: What keeps the host from being the wanted node, each with the reason and the way out.
  returned: success
  type: list
  elements: str
table:
  description: What was found, as the lines of a table with a mark where there are problems.
  returned: when O(wanted) is given
  type: list
  elements: str
report:
  description: Problems and notices, each with the node's name before it.
  returned: when O(wanted) is given
  type: list
  elements: str
notices:
  description: What will work but may surprise; also given as warnings.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dn42.compose.plugins.module_utils._modules import host_facts


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=host_facts.ARGUMENT_SPEC, supports_check_mode=True)
    module.exit_json(**host_facts.run(module))


if __name__ == "__main__":
    main()
