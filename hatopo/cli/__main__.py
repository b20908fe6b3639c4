"""`python -m hatopo.cli`, where the command is not on the PATH."""

from __future__ import annotations

from hatopo.cli import main

raise SystemExit(main())
