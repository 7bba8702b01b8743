/*
 * tenant.h - what one customer of the server keeps in it, and how much he may.
 *
 * A tenant's data outlive requests and are freed one by one, so they lie in no request's arena. They have an owner instead:
 * a tenant may use up to its limit and no more, and when it goes, all that it had goes.
 */
#ifndef EXAMPLE_TENANT_H
#define EXAMPLE_TENANT_H

#include "alloc.h"

typedef struct tenant tenant_t;

/* The tenant of this name, made when it is new; NULL when there are too many, or no memory. Any thread may call these. */
tenant_t *tenant_find(const char *name, size_t length);
/* Keeps a value under a key, in place of an older one. False when the tenant is at its limit: what was there is still there. */
bool tenant_put(tenant_t *tenant, const char *key, const char *value, size_t length);
/* A copy of the value in the arena, since the next request may replace it; NULL when there is none. */
const char *tenant_get(tenant_t *tenant, ak_arena_t *arena, const char *key, size_t *length);
/* Bytes that the tenant uses. */
size_t tenant_used(tenant_t *tenant);
/* Ends all tenants; no thread uses one any more. */
void tenants_destroy(void);

#endif /* EXAMPLE_TENANT_H */
