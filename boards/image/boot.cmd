# Chooses a slot and boots it; for U-Boot, which finds it as boot.scr on the first partition. docs/boards.md has the rules.
#
# good.env names the committed slot; without a valid one it is a. try.env names a slot on trial and the tries that are left.
# A try is counted on the card before its slot is booted. A slot that doesn't load gives way to the other one.

setenv card ${devtype} ${devnum}:${distro_bootpart}
setenv good
setenv try
setenv left
if test -e ${card} good.env; then load ${card} ${loadaddr} good.env 200 && env import -t ${loadaddr} ${filesize} good; fi
if test -e ${card} try.env; then load ${card} ${loadaddr} try.env 200 && env import -t ${loadaddr} ${filesize} try left; fi

if test "${good}" = b; then setenv first b; else setenv first a; fi
setenv rest
if test "${left}" = 3; then setenv rest 2; fi
if test "${left}" = 2; then setenv rest 1; fi
if test "${left}" = 1; then setenv rest 0; fi
if test "${try}" != a && test "${try}" != b; then setenv rest; fi
if test -n "${rest}"; then
    # 512 bytes, as the file had before: one sector is written, and nothing that could be half done.
    setenv left ${rest}
    if env export -t -s 200 ${loadaddr} try left && fatwrite ${card} ${loadaddr} try.env 200; then
        setenv first ${try}
    else
        echo "Dunlin: try.env cannot be written, so slot ${try} is not tried"
    fi
fi
if test "${first}" = a; then setenv second b; else setenv second a; fi
echo "Dunlin: slot ${first} (good ${good}, try ${try}, left ${left})"

# The addresses leave 62 MiB each to kernel and initrd on a Raspberry Pi, whose defaults leave 35 to the kernel.
setenv kernel_at ${kernel_addr_r}
setenv initrd_at ${ramdisk_addr_r}
setenv tree_at ${fdtcontroladdr}
if test "${fdtfile}" = broadcom/bcm2837-rpi-zero-2.dtb; then
    # As Linux calls it.
    setenv fdtfile broadcom/bcm2837-rpi-zero-2-w.dtb
fi
if test -n "${fdtfile}"; then
    setenv kernel_at 200000
    setenv tree_at 4000000
    setenv initrd_at 4200000
fi
for slot in ${first} ${second}; do
    if test ${slot} = a; then setenv part 2; else setenv part 3; fi
    setenv from ${devtype} ${devnum}:${part}
    setenv arguments
    setenv ready
    if part uuid ${from} uuid && load ${from} ${loadaddr} /boot/arguments.env 400; then
        env import -t ${loadaddr} ${filesize} arguments
        if load ${from} ${kernel_at} /boot/kernel && load ${from} ${initrd_at} /boot/initrd; then
            setenv initrd ${initrd_at}:${filesize}
            setenv ready yes
            if test -n "${fdtfile}"; then load ${from} ${tree_at} /boot/dtb/${fdtfile} || setenv ready; fi
        fi
    fi
    if test -n "${ready}"; then
        setenv bootargs root=PARTUUID=${uuid} ${arguments} dunlin.slot=${slot}
        echo "Dunlin: starting slot ${slot}"
        booti ${kernel_at} ${initrd} ${tree_at}
    fi
    echo "Dunlin: slot ${slot} cannot be started"
done

echo "Dunlin: no slot can be started; write the card anew. Trying again in a minute"
sleep 60
reset
