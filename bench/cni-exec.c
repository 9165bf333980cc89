/*
 * Executes CNI plugins as container runtimes do, and says how long each took. Go starts programs by vfork, which copies nothing;
 * Node forks, and copies the page tables of all that it holds, which would be a third of what is to be measured.
 *
 * Reads lines
 *     NUMBER <tab> FILE <tab> NAME=VALUE <unit separator> NAME=VALUE … <tab> INPUT
 * executes each in a thread of its own, and writes for each, when it has ended
 *     NUMBER <tab> MILLISECONDS <tab> EXIT STATUS <tab> OUTPUT
 * with spaces for the line breaks of the output. Ends with its input.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MOST_OUTPUT 65536
#define MOST_ENV 64

static pthread_mutex_t printing = PTHREAD_MUTEX_INITIALIZER;

static void must(int worked, const char *what)
{
	if (worked)
		return;
	perror(what);
	exit(1);
}

static double now(void)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	return at.tv_sec * 1e3 + at.tv_nsec / 1e6;
}

static void *execute(void *line)
{
	char *rest = line, *number = strsep(&rest, "\t"), *file = strsep(&rest, "\t"), *settings = strsep(&rest, "\t");
	char *env[MOST_ENV] = { 0 }, *argv[] = { file, NULL }, *output = malloc(MOST_OUTPUT);
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attributes;
	sigset_t usual;
	int in[2], out[2], status;
	size_t length = 0;
	pid_t pid;

	must(rest != NULL && output != NULL, "a line of four fields");
	for (int i = 0; i < MOST_ENV - 1 && settings != NULL; i++)
		env[i] = strsep(&settings, "\x1f");
	double began = now();

	must(pipe2(in, O_CLOEXEC) == 0 && pipe2(out, O_CLOEXEC) == 0, "pipe2");
	posix_spawn_file_actions_init(&files);
	posix_spawn_file_actions_adddup2(&files, in[0], 0);
	posix_spawn_file_actions_adddup2(&files, out[1], 1);
	posix_spawnattr_init(&attributes);
	sigemptyset(&usual);
	sigaddset(&usual, SIGPIPE);
	posix_spawnattr_setsigdefault(&attributes, &usual);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
	must(posix_spawn(&pid, file, &files, &attributes, argv, env) == 0, file);
	close(in[0]);
	close(out[1]);
	/* One that has ended without reading says by its status why. */
	if (write(in[1], rest, strlen(rest)) < 0)
		perror(file);
	close(in[1]);
	for (ssize_t got; length < MOST_OUTPUT && (got = read(out[0], output + length, MOST_OUTPUT - length)) > 0;)
		length += got;
	close(out[0]);
	must(waitpid(pid, &status, 0) == pid, "waitpid");
	double took = now() - began;

	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&files);
	for (size_t i = 0; i < length; i++)
		if (output[i] == '\n')
			output[i] = ' ';
	pthread_mutex_lock(&printing);
	printf("%s\t%.3f\t%d\t%.*s\n", number, took, WIFEXITED(status) ? WEXITSTATUS(status) : 255, (int)length, output);
	fflush(stdout);
	pthread_mutex_unlock(&printing);
	free(output);
	free(line);
	return NULL;
}

int main(void)
{
	char *line = NULL;
	size_t size = 0;

	signal(SIGPIPE, SIG_IGN);
	for (ssize_t length; (length = getline(&line, &size, stdin)) > 0; line = NULL, size = 0) {
		pthread_t thread;

		line[length - 1] = '\0';
		must(pthread_create(&thread, NULL, execute, line) == 0, "pthread_create");
		pthread_detach(thread);
	}
	return 0;
}
