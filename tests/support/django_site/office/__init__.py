"""An application whose tasks are where a project's tasks are looked for."""
