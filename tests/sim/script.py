"""Random scripts: what people and fate do to a daemon. The same seed always does the same."""

import random
from typing import Any

from reproq_supervisor.core.supervision.facts import ClientLeft, SignalName, SignalReceived
from reproq_supervisor.core.supervision.health import Circuit
from reproq_supervisor.core.supervision.readiness import is_ready
from reproq_supervisor.core.supervision.units import Role, Unit
from tests.sim.behaviour import GOOD, Behaviour, draw, draw_database
from tests.sim.invariants import check_all
from tests.sim.settings import pool, settings
from tests.sim.world import World

CALM_S = 200.0
"""Longer than the longest drain of an old generation; the reload before it ends every pause and quarantine."""

STOP_SLACK_S = 0.02
"""The simulated loop wakes that much late."""


class Script:
    """One daemon's life under a seed."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.badness = self.rng.choice([0.0, 0.1, 0.4, 0.8])
        self.only_in = self.rng.choice([None, "mail"])
        self.bad_generation = self.rng.random() < 0.3
        self.calm = False
        self.embedded: bool | None = None  # drawn once: a reload keeps what the daemon was started with
        self.timeout_s = self.rng.choice([1.0, 3.0, 10.0, 10.0, 30.0])
        # Scripts in which nothing but good children run must also show that nobody is ever killed.
        self.world = World(seed, self._settings(), behave=self._behave)
        self.world.watchers += check_all()

    def _settings(self) -> dict[str, Any]:
        rng = self.rng
        names = rng.sample(["mail", "bulk", "video"], rng.randint(1, 3))
        pools = {name: pool(shards=rng.choice([1, 1, 2, 4]), executors={"min": 1, "max": rng.randint(1, 4)}) for name in names}
        if self.only_in is not None:
            pools.setdefault(self.only_in, pool())
        drawn = rng.random() < 0.3
        self.embedded = drawn if self.embedded is None else self.embedded
        return settings(pools, embedded=self.embedded, shutdown_timeout=self.timeout_s, app={"path": ["."], "preload": [rng.choice("abc")]})

    def _behave(self, unit: Unit, generation: int) -> Behaviour:
        if self.calm or unit.role is Role.PREPARE:
            return GOOD
        if unit.role is Role.POSTGRES:
            return draw_database(self.rng, self.badness / 2)
        if unit.role is Role.KEEPER:
            return draw(self.rng, self.badness / 2 if self.only_in is None else 0.0)
        if self.only_in is not None and unit.pool != self.only_in:
            return draw(self.rng, 0.0)
        return draw(self.rng, self.badness)

    def play(self) -> None:
        """Do a few dozen things, then see that the daemon finds its way back, then stop it."""
        for _ in range(self.rng.randint(3, 25)):
            self._do_something()
            self.world.run(self.rng.choice([0.0, 0.05, 0.5, 3.0, 20.0]))
        if self.rng.random() < 0.35:
            self._check_recovery()
        self._check_end()
        unanswered = [client for client, answers in self.world.replies.items() if len(answers) != 1]
        assert not unanswered, unanswered

    def _do_something(self) -> None:
        world, rng = self.world, self.rng
        match rng.randrange(12):
            case 0 | 1:
                world.settings_on_disk = self._file()
                for _ in range(rng.choice([1, 1, 3, 10])):
                    world.ask("reload", dry_run=rng.random() < 0.2)
            case 2:
                world.feed(SignalReceived(SignalName.HUP))
            case 3:
                world.ask("restart", pool=rng.choice(["mail", "bulk", "nosuch"]))
            case 4:
                world.ask(
                    "scale", pool=rng.choice(["mail", "bulk"]), executors=rng.choice([None, 0, 7, -1, "x"]), for_s=rng.choice([None, 5.0])
                )
            case 5:
                world.ask(rng.choice(["drain", "resume"]), pool=rng.choice(["mail", "bulk", "video"]))
            case 6:
                world.ask(rng.choice(["status", "explain"]), pool=rng.choice(list(world.core.state.plan.pools)))
            case 7 | 8:
                if world.living():
                    world.kill(rng.choice(world.living()), rng.choice(["SIGKILL", "SIGABRT"]))
            case 9:
                # Only a script that may be bad freezes anybody, and where one pool is bad, nobody of the others.
                kinds = (Role.SHARD, Role.POSTGRES) if rng.random() < 0.3 else (Role.SHARD,)
                living = [child for child in world.living(*kinds) if self.only_in in (None, child.unit.pool)]
                for child in rng.sample(living, rng.randint(0, len(living))) if self.badness else ():
                    child.frozen = True
            case 10:
                world.sleep_supervisor(rng.choice([0.5, 5.0, 60.0, 3600.0]))
            case _:
                world.feed(SignalReceived(SignalName.USR2))

    def _file(self) -> Any:
        if self.rng.random() < 0.2:
            return [{"path": "pools.mail", "line": 3, "column": 1, "message": "expected a mapping", "hint": None}]
        return self._settings() if self.rng.random() < 0.7 else self.world.core.state.plan.settings

    def _check_recovery(self) -> None:
        """When everything that starts is good, everything that is wanted runs in the end, and nothing else."""
        world = self.world
        self.calm = True
        world.run(60.0)
        # What was refused for good needs a person; so does what they paused, but that is not our business here.
        world.settings_on_disk = world.core.state.plan.settings
        reload = world.ask("reload")
        world.run(CALM_S)
        state = world.core.state
        assert world.replies[reload][0]["ok"], world.replies[reload]
        for unit in state.plan.units():
            assert is_ready(state, unit, state.generation_of(unit)), (unit, list(state.roster))
        assert len(state.roster) == len(state.plan.units()) + (state.plan.embedded is not None), list(state.roster)
        assert not state.dead_workers, state.dead_workers
        assert all(health.circuit is Circuit.CLOSED for health in state.healths.values()), state.healths
        if self.only_in is not None:
            quarantined = {e.group for _, e in world.events if e.name in ("group.quarantined", "group.refused")}
            assert quarantined <= {f"pool {self.only_in}"}, quarantined

    def _freeze_some(self) -> None:
        """Freeze any of what runs, the database too."""
        for child in self.world.living() if self.badness else ():
            if self.rng.random() < 0.3:
                child.frozen = True

    def _check_end(self) -> None:
        world = self.world
        if self.rng.random() < 0.5:
            self._freeze_some()
            world.run(self.rng.choice([0.0, 0.0, 1.0, 10.0]))
        if self.rng.random() < 0.3:
            world.settings_on_disk = self._file()
            client = world.ask("reload")
            world.run(self.rng.uniform(0.0, 3.0))
            if self.rng.random() < 0.5 and not world.replies[client]:
                world.feed(ClientLeft(client))
                world.replies[client] = [{"left": True}]
        timeout_s = world.core.state.plan.shutdown_timeout_s
        asked_at = world.now
        if self.rng.random() < 0.5:
            world.ask("stop", quick=self.rng.random() < 0.3)
        else:
            world.feed(SignalReceived(self.rng.choice([SignalName.TERM, SignalName.INT, SignalName.QUIT])))
        world.run(self.rng.uniform(0.0, 5.0))
        if self.rng.random() < 0.3:
            self._freeze_some()
        if world.exit_code is None and self.rng.random() < 0.3:
            world.feed(SignalReceived(SignalName.INT))
        world.run(timeout_s + 60.0)
        assert world.exit_code == 0, (world.exit_code, list(world.core.state.roster))
        assert world.exited_at - asked_at <= timeout_s + STOP_SLACK_S, world.exited_at - asked_at
