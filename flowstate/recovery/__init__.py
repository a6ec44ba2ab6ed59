"""Recovery: whatever was committed in a running state ends or rests, whoever dies.

**What there is to do.** Every version of a state has at most one due time, kept in an index by the
driver: its alarm (a delay, a timeout, the backoff of a retry) or, while it is RUNNING, the end of
its lease. An engine renews the leases of what it runs; so a lease that runs out means that the
executor died, hung, or never began. A recoverer acts on what is due: it commits what has become of
the state (``transitions.fire``) and runs it.

**Who does it.** One recoverer of a *group* leads and acts, the others stand by. Nothing breaks if
two lead for a moment, since every firing is a commit at a revision: one of them wins, the other has
lost a race. Leases decide who works; revisions decide what is true. Leading only keeps a group from
doing everything several times.

**Election** uses the kernel itself. The group has a state, ``flowstate.recovery/<group>``:

- it does not exist, or is PAUSED: nobody leads. Whoever commits it as RUNNING, with its own name in
  the label ``leader``, leads. The commit is a compare-and-set, so there is one winner. Its revision
  is the *term*: it only grows, and a renewal names it.
- it is RUNNING: its leader renews its lease, as an engine does for what it runs. Once the lease has
  run out, anyone may commit it again under its own name: a new term.

**Trust.** A leader trusts itself until its lease ends less a margin, counted from the *start* of
the last renewal that succeeded: the store cannot have counted from an earlier moment. A leader that
could not renew in time stops acting before anyone else may begin, unless its process was frozen;
then its commits lose.

**Hand-over.** A recoverer that is left pauses the group's state; those who stand by watch it, and
the first to commit it leads at once. One that dies is replaced when its lease runs out. An engine
that is left releases the leases of what it ran: such a state is due at once, ahead of all others,
and goes on as it is, without a retry.

**Promptness.** The leader sleeps until the next due time, or until a commit may have brought a
nearer one. It does not tick.

The machine of election is one table, ``ELECTION`` in ``elector.py``. A recoverer that meets errors
of the store backs off and goes on; it never spins and never dies silently.
"""

from .elector import ELECTION, LEADER_ID, Event, Role
from .recoverer import Recoverer, Stats
from .worker import Worker

__all__ = ["ELECTION", "LEADER_ID", "Event", "Recoverer", "Role", "Stats", "Worker"]
