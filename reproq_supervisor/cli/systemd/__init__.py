"""The unit file: the machine and the configuration flow in, the text for a service manager flows out.

`needs` says what the daemon must be able to do, `hardening` takes away everything else, `unit` puts the sections together. Pure, but for
`machine` and the command.
"""
