/* A plugin of QEMU's user emulation: counts the instructions that a program executes, over all its threads, and writes
 * the count to the file named by its argument `out`. Declares the few things it uses of QEMU's plugin interface itself,
 * as Debian doesn't ship the header. */

#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;

enum { NO_REGISTERS = 0, VCPUS_MAX = 64, INTERFACE = 1 };

__attribute__((visibility("default"))) int qemu_plugin_version = INTERFACE;

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, void (*cb)(qemu_plugin_id_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *tb, void (*cb)(unsigned int vcpu, void *data), int registers, void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t id, void (*cb)(qemu_plugin_id_t, void *), void *data);

/* One counter a thread, a cache line apart: no thread waits for another, and none is lost. */
static struct {
	uint64_t count;
	char apart[56];
} counted[VCPUS_MAX];

static char out[4096];

static void executed(unsigned int vcpu, void *instructions)
{
	counted[vcpu % VCPUS_MAX].count += (uintptr_t)instructions;
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	(void)id;
	qemu_plugin_register_vcpu_tb_exec_cb(tb, executed, NO_REGISTERS, (void *)(uintptr_t)qemu_plugin_tb_n_insns(tb));
}

static void ended(qemu_plugin_id_t id, void *data)
{
	uint64_t sum = 0;
	FILE *file = fopen(out, "w");
	(void)id;
	(void)data;
	for (int vcpu = 0; vcpu < VCPUS_MAX; vcpu++)
		sum += counted[vcpu].count;
	if (file) {
		fprintf(file, "%llu\n", (unsigned long long)sum);
		fclose(file);
	}
}

__attribute__((visibility("default"))) int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv)
{
	(void)info;
	for (int i = 0; i < argc; i++)
		if (strncmp(argv[i], "out=", 4) == 0)
			snprintf(out, sizeof out, "%s", argv[i] + 4);
	if (!out[0])
		return -1;
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	qemu_plugin_register_atexit_cb(id, ended, NULL);
	return 0;
}
