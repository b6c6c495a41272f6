#!/usr/bin/python
# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: what a DN42 node needs from firewalld, with one reload at most."""

from __future__ import annotations

DOCUMENTATION = r"""
module: firewalld_settings
short_description: Let bridged IPv6 pass and open the tunnels' UDP ports in firewalld
version_added: 0.1.0
description:
  - firewalld's IPv6 reverse-path check drops what a router on a Docker bridge hands its siblings, where C(br_netfilter) shows bridged
    IPv6 to the host's rules. This module looks whether it would, and does the least that helps, see O(strategy).
  - It also keeps the UDP ports of the tunnels in a policy object of their own.
  - firewalld is reloaded only when the reverse-path check changes or the policy object is made; both together are one reload.
    After it the module waits until Docker has its zone and its rules back, published ports of other containers among them. If they
    do not come back, Docker is restarted, and if that does not help either, the module fails and names them.
  - Ports are added and removed without a reload, in the permanent and in the running configuration.
  - On a host where firewalld is absent or stopped nothing is done to it.
author:
  - the dn42.compose contributors (@dn42-compose)
options:
  strategy:
    description:
      - What is done about the reverse-path check. Left alone when the option is not given.
      - V(auto) does nothing where bridged IPv6 is not dropped. Else it sets C(IPv6_rpfilter) to V(loose) where this firewalld knows it and
        the host has an IPv6 default route that lasts, and to V(no) everywhere else. It never touches C(bridge-nf-call-ip6tables), on which
        other networks of the host may rely.
      - V(rpfilter) sets C(IPv6_rpfilter) to O(ipv6_rpfilter), needed or not.
      - V(bridge_nf) sets C(net.bridge.bridge-nf-call-ip6tables=0), now and at boot, and leaves the check on. The module is not loaded for it.
      - V(none) puts back what was there before this module changed it.
    type: str
    choices: [auto, rpfilter, bridge_nf, none]
  ipv6_rpfilter:
    description:
      - The value for O(strategy=rpfilter). Refused where this version of firewalld or its backend does not know it. V(no) is the only one
        that every version knows. An unquoted no or yes of YAML is understood.
    type: str
    default: "no"
  udp_ports:
    description:
      - The UDP ports that are open, and no other, in the policy object. Left alone when the option is not given.
    type: list
    elements: int
  policy:
    description:
      - Name of the policy object.
    type: str
    default: dn42-tunnels
  remove_policy:
    description:
      - Remove the policy object, and with O(strategy=none) put back the file of a firewalld that is stopped as well. For a node that leaves.
    type: bool
    default: false
  state_path:
    description:
      - File on the host that remembers the settings as they were before.
    type: path
    default: /etc/dn42/firewall.json
requirements:
  - firewalld 0.9 or newer for O(udp_ports)
attributes:
  check_mode:
    support: full
    description: Can predict what would change without changing it.
  diff_mode:
    support: full
    description: Shows the changed line, the changed ports and the policy object that is made.
notes:
  - A reload of firewalld ends what was set with C(firewall-cmd) without C(--permanent).
"""

EXAMPLES = r"""
- name: Let bridged IPv6 pass and open two tunnels
  dn42.compose.firewalld_settings:
    strategy: auto
    udp_ports: [22900, 22901]

- name: Put the reverse-path check back as it was
  dn42.compose.firewalld_settings:
    strategy: none
"""

RETURN = r"""
firewalld:
  description: What firewalld does on this host, V(absent), V(stopped) or V(running).
  returned: success
  type: str
ipv6_rpfilter:
  description: The reverse-path check after the run.
  returned: when firewalld is installed
  type: dict
  contains:
    value:
      description: What firewalld makes of its file, one of no, strict, loose, strict-forward, loose-forward.
      type: str
    replaced:
      description: The check that this module weakened or switched off, null when it did not.
      type: str
bridge_nf_call_ip6tables:
  description: Whether bridged IPv6 meets the host's rules after the run, null while C(br_netfilter) is not loaded.
  returned: success
  type: int
reason:
  description: Why the strategy acts as it does here, in a sentence.
  returned: when O(strategy) is given
  type: str
udp_ports:
  description: Ports open in the policy object after the run.
  returned: when firewalld is running
  type: list
  elements: str
reloaded:
  description: Whether firewalld was (in check mode, would be) reloaded.
  returned: success
  type: bool
docker_restarted:
  description: Whether Docker was restarted because its rules had not come back.
  returned: success
  type: bool
lost_user_rules:
  description: Rules of chain DOCKER-USER that the reload took away. They are the operator's, who must add them again.
  returned: success
  type: list
  elements: str
actions:
  description: What was done, item by item.
  returned: success
  type: list
  elements: str
msg:
  description: What was done and why, in a sentence.
  returned: success
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dn42.compose.plugins.module_utils._modules import firewalld_settings


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=firewalld_settings.ARGUMENT_SPEC, supports_check_mode=True)
    module.exit_json(**firewalld_settings.run(module))


if __name__ == "__main__":
    main()
