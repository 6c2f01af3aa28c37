# Turns a configured Debian into an image. Run by configure.sh on the board's architecture.
# shellcheck shell=sh

at_boot() { systemctl --quiet enable "$@"; }

# Names, time, network and ssh; udev starts the wireless network.
at_boot systemd-networkd systemd-resolved systemd-timesyncd ssh
at_boot dunlin-hostname dunlin-first-boot dunlin-first-boot-report
[ ! -e /lib/systemd/system/dunlin-agent.service ] || at_boot dunlin-agent
systemctl --quiet disable systemd-networkd-wait-online wpa_supplicant 2>/dev/null || true
# The root is read-only and nothing survives a boot, so these have nothing to do.
systemctl --quiet mask systemd-journal-catalog-update systemd-update-done systemd-fsck-root systemd-firstboot \
    systemd-machine-id-commit dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap

# Mount points of the boot and data partitions.
mkdir -p /boot/firmware /data /etc/dunlin /etc/credstore
chmod 0700 /etc/credstore
rm -f /etc/resolv.conf
ln -s /run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
# Empty: the data partition's file is bind-mounted over it.
: >/etc/machine-id

dpkg-query -W -f '${Package} ${Version} ${Architecture}\n' >/usr/share/dunlin-image-packages
# Recreated at boot, or not needed.
rm -rf /var/cache/* /var/log/* /var/tmp/* /var/lib/apt /var/lib/systemd/* /var/lib/dbus/machine-id /var/lib/dpkg/*-old \
    /etc/ssh/ssh_host_* /etc/*- /tmp/* /run/* /initrd.img* /vmlinuz* /var/lib/ucf/cache/*
