"""What tests share: pollers, real databases, real daemons, builders."""
