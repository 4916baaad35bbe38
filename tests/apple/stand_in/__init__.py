"""A stand-in for Apple's `container`: its command line as in 0.12.3, 1.0.0, 1.1.0 and 1.2.2, with Docker or Podman underneath.

It is as strict as the real one: options, values, messages, exit statuses, JSON and what happens when are those of the release that it
plays; what it does not play ends with status 70 and "the stand-in does not play this". The containers are real, but they bear none of
the labels that they are given: an engine underneath that is asked for ours by a label does not list them.

In a test:

    stand_in = StandIn(tmp_path / "mac", version="1.0.0", engine="docker", boot=0.2)     # from .stand_in.faults
    monkeypatch.setenv(...)  # each of stand_in.environment(); its PATH finds `container` first
    stand_in.fault(hang=["delete"], addresses="full")       # see `faults` for all
    stand_in.clear()                                        # all is well again
    stand_in.registry("example.org/image", "container-kernels/python")   # a pull of the first finds the second
    stand_in.run("list", "--all", "--format", "json")       # a CompletedProcess, by the command itself
    stand_in.containers()                                   # the records, by id
    stand_in.recorded()                                     # the argv of each call so far
    stand_in.log                                            # (container, begin, end) of each boot
    stand_in.destroy()                                      # nothing of it is left: always, in a fixture's end

`grammar.refusal(version, argv)` says why a release would refuse these words, or None.

By hand: `STAND_IN_STATE=/tmp/mac PATH=$PWD/tests/apple:$PATH container run -d --name a container-kernels/python sleep 60`

Environment, which `StandIn.environment` sets:

    STAND_IN_VERSION  0.12.3, 1.0.0, 1.1.0 or 1.2.2 (the default)
    STAND_IN_ENGINE   docker (the default) or podman
    STAND_IN_STATE    the directory with all that is remembered: two of them are two Macs
    STAND_IN_BOOT     seconds that a boot takes at least
    STAND_IN_RECORD   a file that every call is written to

Modules: `grammar` and `values` say what is accepted, `configuration` makes a container's record of it, `world` keeps records, locks and
faults; `lifecycle` has the verbs, `boot` and `runtime` start a container and see it end, `forwarding` plays its ports, `attached` the
foreground; `showing` and `shapes` print; `under` is the engine beneath. `main` has the table of what is played.
"""
