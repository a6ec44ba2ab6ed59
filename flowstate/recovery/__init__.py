"""Recovery: whatever was committed in a running state ends or rests, whoever dies.

**Working.** What is RUNNING and nobody has taken is ready: it was submitted, resumed or retried, or
its engine gave it back. A worker claims what is ready for the flows that its engine has, as much as
it has places for, and runs it. Any number of workers share a store, each state is given to one.

**Leading.** Every version of a state has at most one due time, kept in an index by the driver: its
alarm (a delay, a timeout, the backoff of a retry) or, while it is taken, the end of its lease. An
engine renews the leases of what it runs; so a lease that runs out means that its owner died or
hung. Where the store can tell who is there, each recoverer looks who of those that have taken
something is (``roll_call.py``), and the leader ends the leases of the dead. The leader commits what
has become of a state that is due (``transitions.fire``), whatever its flow; if it is RUNNING then,
it is ready for whoever has that flow.

**Who does it.** A ``Worker`` works. A ``Recoverer`` works and stands for election: one of all that
are open on a store leads, the others stand by. Nothing breaks if two lead for a moment, since every
firing is a commit at a revision: one of them wins, the other has lost a race. Leases decide who
works; revisions decide what is true. Leading only keeps all of them from doing everything several
times.

**Election** uses the kernel itself. There is one state for it, ``flowstate.recovery``:

- it does not exist, or is PAUSED: nobody leads. Whoever commits it as RUNNING, with its own name in
  the label ``leader``, leads. The commit is a compare-and-set, so there is one winner. Its revision
  is the *term*: it only grows, and a renewal names it.
- it is RUNNING: its leader renews its lease, as an engine does for what it runs. Once the lease has
  run out, anyone may commit it again under its own name: a new term.

**Trust.** A leader trusts itself until its lease ends less a margin, counted from the *start* of
the last renewal that succeeded: the store cannot have counted from an earlier moment. A leader that
could not renew in time stops acting before anyone else may begin, unless its process was frozen,
or seemed dead; then its commits lose.

**Hand-over.** A recoverer that is left pauses that state; those who stand by watch it, and the
first to commit it leads at once. One that dies is replaced when that is seen, or its lease runs
out. An engine that is left releases what it ran: it is ready at once, and goes on as it is, without
a retry.

**Promptness.** A worker sleeps until something is committed or released, or until it has more room;
the leader until the next due time, or until a commit may have brought a nearer one. Neither ticks;
only who is there is looked at again and again, while others have something or could.

The machine of election is one table, ``ELECTION`` in ``elector.py``. A recoverer that meets errors
of the store backs off and goes on; it never spins and never dies silently.
"""

from .elector import ELECTION, LEADER_ID, Event, Role
from .recoverer import Recoverer, Stats
from .worker import Worker

__all__ = ["ELECTION", "LEADER_ID", "Event", "Recoverer", "Role", "Stats", "Worker"]
