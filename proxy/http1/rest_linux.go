package http1

import (
	"os"
	"sync"
	"syscall"
)

// restingPlace is where connections are that have been idle for a while. They have no
// goroutine, which is most of what they would hold: one waits for all of them, with an
// epoll of its own.
type restingPlace struct {
	epoll *os.File

	mu       sync.Mutex
	sessions map[int32]*session // by their descriptor
}

// newRestingPlace returns nil if there can be none.
func newRestingPlace() *restingPlace {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil
	}
	if err := syscall.SetNonblock(fd, true); err != nil { // so that the runtime waits for it
		syscall.Close(fd)
		return nil
	}
	return &restingPlace{epoll: os.NewFile(uintptr(fd), "epoll"), sessions: map[int32]*session{}}
}

// close ends watch.
func (p *restingPlace) close() {
	if p != nil {
		p.epoll.Close()
	}
}

// watch resumes the sessions on whose connections something comes.
func (p *restingPlace) watch() {
	if p == nil {
		return
	}
	raw, err := p.epoll.SyscallConn()
	if err != nil {
		return
	}
	events := make([]syscall.EpollEvent, 128)
	raw.Read(func(epoll uintptr) bool {
		for {
			n, err := syscall.EpollWait(int(epoll), events, 0)
			if n <= 0 && err != syscall.EINTR {
				return false
			}
			for _, e := range events[:max(n, 0)] {
				if s := p.take(epoll, e.Fd); s != nil {
					go s.serve()
				}
			}
		}
	})
}

// take returns the session of a descriptor, which rests no more; nil if it did not.
func (p *restingPlace) take(epoll uintptr, fd int32) *session {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.sessions[fd]
	if s != nil {
		delete(p.sessions, fd)
		syscall.EpollCtl(int(epoll), syscall.EPOLL_CTL_DEL, int(fd), nil)
	}
	return s
}

// enter has the session rest. From then on it belongs to who takes it. It says
// whether that is possible.
func (p *restingPlace) enter(s *session) (entered bool) {
	if p == nil {
		return false
	}
	p.control(s, func(epoll, fd uintptr) {
		p.mu.Lock()
		defer p.mu.Unlock()
		event := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLRDHUP | syscall.EPOLLONESHOT, Fd: int32(fd)}
		if syscall.EpollCtl(int(epoll), syscall.EPOLL_CTL_ADD, int(fd), &event) == nil {
			p.sessions[int32(fd)], entered = s, true
		}
	})
	return entered
}

// leave says whether the session rested; then it does no more, and is the caller's.
func (p *restingPlace) leave(s *session) (left bool) {
	if p != nil {
		p.control(s, func(epoll, fd uintptr) { left = p.take(epoll, int32(fd)) == s })
	}
	return left
}

func (p *restingPlace) control(s *session, do func(epoll, fd uintptr)) {
	raw, err := p.epoll.SyscallConn()
	if err != nil {
		return
	}
	raw.Control(func(epoll uintptr) {
		s.in.raw.Control(func(fd uintptr) { do(epoll, fd) })
	})
}
