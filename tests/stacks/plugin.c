/* A module that is on the stack while something is allocated, and is unloaded afterwards. */
void call(void *(*function)(void *));

void call(void *(*function)(void *))
{
    function(0);
    __asm__ volatile("" ::: "memory");
}
