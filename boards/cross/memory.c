/* The first and only process of a guest that measures memory: runs the agent once, says the most memory it had resident, and
 * switches the guest off. Linked statically, as the guest has nothing but the agent and its libraries. */

#include <stdio.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void run_agent(void)
{
	char *const arguments[] = { "/agent", "check", "--model", "/models/drafter", "--broker", "mqtt://127.0.0.1:1",
		"--device", "figures", "--power", "none", NULL };
	char *const environment[] = { "PATH=/", NULL };
	execve(arguments[0], arguments, environment);
	_exit(127);
}

int main(void)
{
	/* The agent mistrusts a clock that was never set. */
	const struct timespec now = { .tv_sec = 1800000000 };
	struct rusage used = { 0 };
	pid_t agent;
	int status = 0;

	mount("proc", "/proc", "proc", 0, NULL);
	mount("tmpfs", "/tmp", "tmpfs", 0, NULL);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	clock_settime(CLOCK_REALTIME, &now);
	agent = fork();
	if (agent == 0)
		run_agent();
	if (agent > 0 && wait4(agent, &status, 0, &used) == agent)
		printf("\npeak_kib %ld\n", used.ru_maxrss);
	fflush(stdout);
	sync();
	reboot(RB_POWER_OFF);
	return 1;
}
