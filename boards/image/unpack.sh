#!/usr/bin/env bash
# Unpacks arm64 packages on any machine into a new or existing tree, without running their scripts. Run by inside.sh, as
# root of its namespace.
#
# usage: unpack.sh ROOT DEB…
#
# The host's dpkg does the unpacking and writes its usual database. The preinst scripts are taken out, and configure.sh
# runs them later: the first of them would find no shell yet.
set -euo pipefail
# shellcheck source=boards/image/debian.sh
. "$(dirname "$0")/debian.sh"

# No globbing: these patterns are for dpkg.
set -f
# Files that an unattended board doesn't need.
EXCLUDED=(/usr/share/{bash-completion,bug,doc,info,lintian,locale,man,zsh})
# Kernel modules for devices that no board has.
MODULES_EXCLUDED=(sound drivers/{accel,ata,bluetooth,edac,firewire,gpu,infiniband,isdn,md,media,message,mtd,nvme,parport}
    drivers/{pcmcia,platform,soundwire,staging,target,thunderbolt,ufs,vfio,vhost,video,xen} drivers/crypto/{hisilicon,qat,cavium}
    drivers/net/{can,dsa,fddi,hamradio,hippi,ieee802154,wan,wwan} drivers/usb/{image,musb,typec}
    fs/{9p,afs,btrfs,ceph,f2fs,gfs2,hfs,hfsplus,jffs2,jfs,nfs,nfsd,nilfs2,ntfs3,ocfs2,orangefs,reiserfs,smb,ubifs,udf,xfs}
    net/{9p,atm,batman-adv,bluetooth,can,ceph,dsa,ieee802154,mac802154,nfc,openvswitch,rds,rxrpc,sctp,sunrpc,tipc})
# In these directories, only the matching entries stay.
MODULES_KEPT=(drivers/net/ethernet:broadcom drivers/net/wireless:broadcom 'drivers/scsi:s[cdg]*' drivers/usb/gadget:udc)
set +f

main() {
    local root=$1 deb number=100
    shift
    strip=$root.strip
    rm -rf "$strip"
    mkdir -p "$root/dunlin-build/preinst" "$strip"
    [[ -e $root/bin ]] || merged_usr "$root"
    local -a stripped=()
    for deb in "$@"; do
        number=$((number + 1))
        strip_preinst "$deb" "$number" "$root"
        stripped+=("$strip/$number.deb")
    done
    unpack "$root" "${stripped[@]}"
    [[ -e $root/etc/passwd ]] || cut_modules "$root"
    rm -rf "$strip"
}

# The packages of this Debian release still contain /bin, /sbin and /lib, so the links must exist first.
merged_usr() {
    local name
    for name in bin sbin lib; do
        mkdir -p "$1/usr/$name"
        ln -s "usr/$name" "$1/$name"
    done
    mkdir -p "$1/var/lib/dpkg"/{info,updates,triggers}
    : >"$1/var/lib/dpkg/status"
}

# Copies the package without its preinst, and moves that into the tree under a name that keeps the order.
strip_preinst() {
    local deb number=$2 root=$3 dir=$strip/$2 name
    deb=$(realpath "$1")
    mkdir -p "$dir/control"
    dpkg-deb -e "$deb" "$dir/control"
    if [[ ! -f $dir/control/preinst ]]; then
        ln -s "$deb" "$dir.deb"
        return
    fi
    name=$(dpkg-deb -f "$deb" Package)
    mv "$dir/control/preinst" "$root/dunlin-build/preinst/$number.$name"
    (
        cd "$dir"
        ar x "$deb"
        rm control.tar.*
        tar -C control -cf control.tar .
        ar rcD "../$number.deb" debian-binary control.tar data.tar.*
    )
    rm -rf "$dir"
}

unpack() {
    local root=$1 pattern
    shift
    local -a options=()
    set -f
    for pattern in "${EXCLUDED[@]}" "${MODULES_EXCLUDED[@]/#//lib/modules/*/kernel/}"; do
        options+=("--path-exclude=${pattern%/\*}/*")
    done
    set +f
    dpkg --root="$root" --force-architecture --force-unsafe-io --force-depends --force-not-root --no-triggers --log=/dev/null \
        "${options[@]}" --path-include='/usr/share/doc/*/copyright' --unpack "$@" \
        >"$WORK/unpack.log" 2>&1 || {
        tail -n 20 "$WORK/unpack.log" >&2
        die "unpacking failed" "See $WORK/unpack.log."
    }
}

# Removes the other drivers of a few large directories, and every module that depends on a removed one. The devices of the
# latter, by their names in device trees, are appended to $LOST.
cut_modules() {
    local kernel entry keep
    kernel=$(echo "$1"/lib/modules/*/kernel)
    for entry in "${MODULES_KEPT[@]}"; do
        keep=${entry#*:}
        find "$kernel/${entry%%:*}" -mindepth 1 -maxdepth 1 ! -name "$keep" -exec rm -rf {} +
    done
    lame_modules "$kernel" >"$WORK/lame"
    while [[ -s $WORK/lame ]]; do
        xargs modinfo -F alias <"$WORK/lame" | sed -n 's/^of:N\*T\*C\(.*\)C\*$/\1/p' >>"$1/$LOST"
        xargs rm -f <"$WORK/lame"
        lame_modules "$kernel" >"$WORK/lame"
    done
}

# Prints the modules that depend on a missing one.
lame_modules() {
    find "$1" -name '*.ko' | LC_ALL=C sort >"$WORK/modules"
    xargs modinfo -F depends <"$WORK/modules" >"$WORK/depends"
    paste "$WORK/modules" "$WORK/depends" | awk -F'\t' '
        { name = $1; sub(/.*\//, "", name); sub(/\.ko$/, "", name); gsub(/-/, "_", name); there[name] = 1
          file[NR] = $1; depends[NR] = $2 }
        END { for (i = 1; i <= NR; i++) {
            count = split(depends[i], needed, ",")
            for (j = 1; j <= count; j++) { gsub(/-/, "_", needed[j]); if (!(needed[j] in there)) { print file[i]; break } }
        } }'
}

main "$@"
