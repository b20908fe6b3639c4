"""Programs that tests run in an interpreter of their own: what forks, patches or exits needs one."""
