from netboot.iscsi.express import Lane as Lane
