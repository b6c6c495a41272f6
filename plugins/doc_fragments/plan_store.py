# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where an address plan is kept, as the options of every module that opens one."""

from __future__ import annotations

import textwrap

# One source for all: the options are those of `_plan_stores.STORE_SPEC`, which the tests compare.
_SUBOPTIONS = r"""
kind:
  description:
    - V(file) is a YAML file made for git. For teams, V(postgresql) is a database and V(netbox) prefixes in a NetBox of version 4.0 or newer.
  type: str
  choices: [file, postgresql, netbox]
  default: file
path:
  description:
    - The plan file, with an absolute path. For V(file), which needs it. It is made when the first block is given.
    - While it is written, a lock lies beside it with C(.lock) behind its name.
  type: path
dsn:
  description: >-
    The database as libpq takes it, without a password, such as V(host=db.example.org dbname=dn42). For V(postgresql),
    which needs it.
  type: str
password:
  description: The database's password, where libpq does not find it by itself. For V(postgresql).
  type: str
network:
  description: The name of the plan, where several share a database or a NetBox. For V(postgresql) and V(netbox).
  type: str
  default: dn42
lock_timeout:
  description: How many seconds to wait for another run that writes the plan. For V(file) and V(postgresql).
  type: int
  default: 60
url:
  description: The address of NetBox's start page, such as V(https://netbox.example.org). For V(netbox), which needs it.
  type: str
token:
  description: A token for NetBox's API, one that may write if the plan changes. For V(netbox), which needs it.
  type: str
validate_certs:
  description: Whether NetBox must show a certificate that is trusted.
  type: bool
  default: true
ca_path:
  description: A file with the certificate of the CA that signed NetBox's, in place of the system's. For V(netbox).
  type: path
timeout:
  description: How many seconds NetBox may take for one answer.
  type: int
  default: 30
"""


def _option(name: str, description: str) -> str:
    head = f"  {name}:\n    description: {description}\n    type: dict\n    required: true\n    suboptions:\n"
    return head + textwrap.indent(_SUBOPTIONS.strip("\n"), " " * 6) + "\n"


class ModuleDocFragment:
    """`plan_store` is one store; `plan_store.copy` are the two of a copy."""

    DOCUMENTATION = "options:\n" + _option("store", "Where the plan is kept.")
    COPY = "options:\n" + _option("source", "The store to copy from.") + _option("destination", "The store to copy to.")
