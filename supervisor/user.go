package supervisor

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// credential returns what a process runs as: the user with its groups, or Mainstay's own user with another
// group, or nil for Mainstay's own.
func credential(name, group string) (*syscall.Credential, error) {
	if name == "" && group == "" {
		return nil, nil
	}
	c := &syscall.Credential{Uid: uint32(os.Geteuid()), Gid: uint32(os.Getegid())}
	if name != "" {
		u, err := lookupUser(name)
		if err != nil {
			return nil, err
		}
		if c.Uid, err = id(u.Uid); err != nil {
			return nil, err
		}
		if u.Gid == "" && group == "" {
			return nil, fmt.Errorf("user %s is in no user database: say its group too", name)
		}
		if u.Gid != "" {
			if c.Gid, err = id(u.Gid); err != nil {
				return nil, err
			}
			if c.Groups, err = groups(u); err != nil {
				return nil, err
			}
		}
	}
	if group != "" {
		g, err := lookupGroup(group)
		if err != nil {
			return nil, err
		}
		c.Gid = g
	}
	// Only root may set groups; another user can still name itself.
	c.NoSetGroups = os.Geteuid() != 0
	return c, nil
}

// lookupUser finds a user by name or id. An id that is in no database is a user without group and home.
func lookupUser(name string) (*user.User, error) {
	u, err := user.Lookup(name)
	if err == nil {
		return u, nil
	}
	if _, notID := id(name); notID != nil {
		return nil, err
	}
	if u, err = user.LookupId(name); err == nil {
		return u, nil
	}
	var unknown user.UnknownUserIdError
	if errors.As(err, &unknown) {
		return &user.User{Uid: name, Username: name}, nil
	}
	return nil, err
}

func lookupGroup(name string) (uint32, error) {
	g, err := user.LookupGroup(name)
	if err == nil {
		return id(g.Gid)
	}
	if gid, notID := id(name); notID == nil {
		return gid, nil
	}
	return 0, err
}

func groups(u *user.User) ([]uint32, error) {
	names, err := u.GroupIds()
	if err != nil {
		return nil, err
	}
	var list []uint32
	for _, name := range names {
		g, err := id(name)
		if err != nil {
			return nil, err
		}
		list = append(list, g)
	}
	return list, nil
}

func id(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err
}
